"""The auth object: its settings, the hot path, and a driver of each colour for everything else."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import ReauthError, in_request
from httpx_reauth._request.challenges import would_refuse_another
from httpx_reauth._request.exchange import Plan, Send, Sent, after_refusal, exchange
from httpx_reauth._request.origins import ANY_HTTPS, Home, Origin, is_admitted, listed, origin_of, spelt
from httpx_reauth._request.packages import Face
from httpx_reauth._request.replay import is_replayable
from httpx_reauth._request.snapshot import NOTHING_YET, Snapshot, SnapshotSource
from httpx_reauth._state.state import AuthState
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Refresh, Token
from httpx_reauth._tokens.manager import Refresher
from httpx_reauth._tokens.wait import Wait
from httpx_reauth.storage.base import Storage

if TYPE_CHECKING:
    from httpx_reauth._request.packages import URL, Request, Response

RequestT = TypeVar("RequestT", bound="Request")
ResponseT = TypeVar("ResponseT", bound="Response")

_log = logging.getLogger("httpx_reauth")

_NO_ORIGINS: frozenset[Origin] = frozenset()  # shared: an empty one of its own for each of 100,000 would cost 20 MB
_NONE = type(None)
_FEW = 64  # origins that are remembered: loopback ones seen, and strangers warned of


class ReauthBase(SnapshotSource, Generic[RequestT, ResponseT]):
    """Everything that the faces for httpx and httpx2 share."""

    __slots__ = (
        "_admitted",
        "_home",
        "_is_rejected",
        "_origins",
        "_warned",
        "authorize",
        "buffer_request_body",
    )

    face: ClassVar[Face]
    requires_request_body: bool
    requires_response_body: bool

    def __init__(
        self,
        refresh: Refresh,
        *,
        token: Token | None = None,
        store: TokenStore | None = None,
        storage: Storage | None = None,
        origins: Iterable[str] | None = None,
        leeway: float = 60.0,
        refresh_timeout: float = 30.0,
        authorize: Callable[[RequestT, Token], object] | None = None,
        is_rejected: Callable[[ResponseT], bool] | None = None,
        buffer_request_body: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if not callable(refresh):
            raise TypeError("refresh must be a function that takes the last token and returns the next, or a grant.")
        _check("token", token, (_NONE, Token), "a Token")
        _check("store", store, (_NONE, TokenStore), "a TokenStore")
        _check("storage", storage, (_NONE, Storage), "a Storage (something with load, save, clear and lock)")
        _check("leeway", leeway, (int, float), "a number of seconds")
        _check("refresh_timeout", refresh_timeout, (int, float), "a number of seconds")
        if not (leeway >= 0 and math.isfinite(leeway)):
            raise ValueError("leeway must be a number of seconds, 0 or more.")
        if not (refresh_timeout > 0 and math.isfinite(refresh_timeout)):
            raise ValueError("refresh_timeout must be a number of seconds, more than 0.")
        self.store = TokenStore() if store is None else store
        self._refresher = Refresher(
            refresh,
            self.store,
            token,
            storage=storage,
            leeway=leeway,
            timeout=refresh_timeout,
            clock=clock or SYSTEM_CLOCK,
        )
        self._snapshot, self._monotonic = NOTHING_YET, self._refresher.clock.monotonic
        self.authorize = authorize
        self._is_rejected = is_rejected
        self.buffer_request_body = buffer_request_body or self.requires_request_body
        self._origins = None if origins is None else listed(origins, self.face.url)
        self._home = ANY_HTTPS if not self._origins else Home(*next(iter(self._origins)))
        self._admitted = self._origins or _NO_ORIGINS
        self._warned = _NO_ORIGINS

    # The hot path stands in both of the next two, line by line the same: one more generator, or one call more,
    # would cost what it saves. Everything else of the flow is written once.

    def sync_auth_flow(self, request: RequestT) -> Generator[RequestT, ResponseT, None]:
        """Called by the sync client."""
        joined: Wait | None = None
        while True:
            snapshot, at, url = self._snapshot, self._home, request.url
            if (
                snapshot.state is self.store._state  # pyright: ignore[reportPrivateUsage] - a property would cost as much as all else
                and self._monotonic() < snapshot.hot_until
                and (
                    (url.scheme == at.scheme and (at.host is None or (url.host == at.host and url.port == at.port)))
                    or (url.scheme, url.host, url.port) in self._admitted
                )
            ):
                request.headers["Authorization"] = snapshot.header
                response = yield request
                if response.status_code != 401:
                    return
                plan = self._refused(snapshot, request, response, is_async=False)
                break
            if joined is None and (joined := self._to_join(request, is_async=False)) is not None:
                joined.wait()
                continue
            plan = exchange(self, request, is_async=False, joined=joined)
            break
        answer: Any = None
        while True:
            try:
                step = plan.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Send):
                answer = yield cast("RequestT", step.request)
            elif isinstance(step, Wait):
                step.wait()
            else:
                answer = step.read()

    async def async_auth_flow(self, request: RequestT) -> AsyncGenerator[RequestT, ResponseT]:
        """Called by the async client."""
        joined: Wait | None = None
        while True:
            snapshot, at, url = self._snapshot, self._home, request.url
            if (
                snapshot.state is self.store._state  # pyright: ignore[reportPrivateUsage] - a property would cost as much as all else
                and self._monotonic() < snapshot.hot_until
                and (
                    (url.scheme == at.scheme and (at.host is None or (url.host == at.host and url.port == at.port)))
                    or (url.scheme, url.host, url.port) in self._admitted
                )
            ):
                request.headers["Authorization"] = snapshot.header
                response = yield request
                if response.status_code != 401:
                    return
                plan = self._refused(snapshot, request, response, is_async=True)
                break
            if joined is None and (joined := self._to_join(request, is_async=True)) is not None:
                await joined.async_wait()
                continue
            plan = exchange(self, request, is_async=True, joined=joined)
            break
        answer: Any = None
        while True:
            try:
                step = plan.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Send):
                answer = yield cast("RequestT", step.request)
            elif isinstance(step, Wait):
                await step.async_wait()
            else:
                answer = await step.aread()

    @property
    def _is_plain(self) -> bool:
        return not (self.authorize or self._is_rejected or self.buffer_request_body or self.requires_response_body)

    # What the flow needs of it.

    def may_go_to(self, url: URL) -> bool:
        """May the token go to `url`? A stranger is warned of once; `InsecureOrigin` is raised for plain http."""
        if self._origins is None and url.scheme == "https":
            return True
        origin, as_written = origin_of(url), (url.scheme, url.host, url.port)
        if as_written in self._admitted:
            return True
        if is_admitted(origin, self._origins):
            if len(self._admitted) < _FEW + len(self._origins or ()):
                self._admitted |= {as_written}
            return True
        if origin not in self._warned and len(self._warned) < _FEW:
            self._warned |= {origin}
            _log.warning(
                "A request to %s is sent without the access token, since that origin is not listed in origins=.",
                spelt(origin),
            )
        return False

    def is_refused(self, response: Response, token: Token) -> bool:
        """Does `response` say that `token` is no good, so that another one may help?"""
        if self._is_rejected is not None:
            return bool(self._is_rejected(cast("ResponseT", response)))
        if response.status_code != 401:
            return False
        return not would_refuse_another(response.headers.get_list("WWW-Authenticate"), token.token_type)

    def can_replay(self, request: Request) -> bool:
        """Can `request` be sent again byte for byte?"""
        return is_replayable(request.stream, self.face.byte_stream)

    def _to_join(self, request: RequestT, *, is_async: bool) -> Wait | None:
        """The flight that a request waits for before anything is built up for it: there may be 10,000 of them."""
        flight = self._refresher.to_join(is_async=is_async) if self._is_plain else None
        if flight is None or not self.may_go_to(request.url):
            return None
        return Wait(flight, until=self.now() + self._refresher.timeout)

    def token_for(
        self, request: Request, *, is_async: bool, rejected: Token | None = None, joined: Wait | None = None
    ) -> Generator[Wait, None, Token]:
        """The token for `request`, and errors that are the client's own as well."""
        snapshot, state = self._snapshot, self.store.state
        if rejected is None and snapshot.state is state and state.token is not None and self.now() < snapshot.until:
            return state.token
        try:
            token = yield from self._refresher.token(is_async=is_async, rejected=rejected, joined=joined)
        except ReauthError as error:
            raise in_request(error, self.face.transport_error, request) from error.__cause__
        snapshot, state = self._snapshot, self.store.state
        if snapshot.state is not state or self.now() >= snapshot.until:  # of all that waited, one takes it
            self._take_snapshot(state, is_async=is_async)
        return token

    def _refused(self, snapshot: Snapshot, request: Request, response: Response, *, is_async: bool) -> Plan:
        token = cast("Token", cast("AuthState", snapshot.state).token)
        if self.is_refused(response, token):
            sent = Sent(token, None, [(b"Authorization", snapshot.header.encode())], request.url)
            yield from after_refusal(self, request, sent, response, is_async=is_async)


def _check(name: str, value: object, kinds: tuple[type, ...], what: str) -> None:
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {what}, not {type(value).__name__}.")
