"""The auth object: its settings, and the hot path of a request with a valid token."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, cast

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import ReauthError, in_request
from httpx_reauth._request.challenges import would_refuse_another
from httpx_reauth._request.exchange import Plan, Send, Sent, after_refusal, exchange
from httpx_reauth._request.origins import ANY_HTTPS, Home, Origin, is_admitted, listed, origin_of, spelt
from httpx_reauth._request.packages import Face
from httpx_reauth._request.replay import is_replayable
from httpx_reauth._state.state import AuthState
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Refresh, Token
from httpx_reauth._tokens.manager import Refresher
from httpx_reauth._tokens.source import TokenSource
from httpx_reauth._tokens.steps import arun_steps, run_steps
from httpx_reauth.storage.base import Storage

if TYPE_CHECKING:
    from httpx_reauth._request.packages import URL, Request, Response
    from httpx_reauth._tokens.wait import Wait

RequestT = TypeVar("RequestT", bound="Request")
ResponseT = TypeVar("ResponseT", bound="Response")

_log = logging.getLogger("httpx_reauth")

_NO_ORIGINS: frozenset[Origin] = frozenset()  # shared: an empty one of its own for each of 100,000 would cost 20 MB
_NONE = type(None)
_FEW = 64  # origins that are remembered: loopback ones seen, and strangers warned of


class Snapshot:
    """What the hot path reads instead of the state.

    Attributes:
        state: the state for which the rest is right.
        until: until when its token may be used without a further decision (monotonic seconds).
        hot_until: the same; but -inf where there is more to do for a request than to set the header.
        header: the value of `Authorization`.
    """

    __slots__ = ("header", "hot_until", "state", "until")

    def __init__(self, state: AuthState | None, until: float, hot_until: float, header: str) -> None:
        self.state = state
        self.until = until
        self.hot_until = hot_until
        self.header = header


_NOTHING_YET = Snapshot(None, -math.inf, -math.inf, "")


class ReauthBase(TokenSource, Generic[RequestT, ResponseT]):
    """Everything that the faces for httpx and httpx2 share."""

    __slots__ = (
        "_admitted",
        "_home",
        "_is_rejected",
        "_monotonic",
        "_origins",
        "_snapshot",
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
            package=self.face.name,
        )
        self._snapshot, self._monotonic = _NOTHING_YET, self._refresher.clock.monotonic
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
            plan = self._after_401(snapshot, request, response, is_async=False)
        else:
            plan = exchange(self, request, is_async=False)
        step: Send | None = run_steps(plan)
        while step is not None:
            step = run_steps(plan, (yield cast("RequestT", step.request)))

    async def async_auth_flow(self, request: RequestT) -> AsyncGenerator[RequestT, ResponseT]:
        """Called by the async client."""
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
            plan = self._after_401(snapshot, request, response, is_async=True)
        else:
            plan = exchange(self, request, is_async=True)
        step: Send | None = await arun_steps(plan)
        while step is not None:
            step = await arun_steps(plan, (yield cast("RequestT", step.request)))

    def _take_snapshot(self, state: AuthState) -> None:
        """Let the hot path know the token of `state`, if it may be used for a while."""
        token, until = state.token, self._refresher.usable_until(state)
        if token is None or until <= self.now():
            return
        is_plain = not (self.authorize or self._is_rejected or self.buffer_request_body or self.requires_response_body)
        header = f"{token.token_type} {token.access_token}" if is_plain else ""
        self._snapshot = Snapshot(state, until, until if is_plain else -math.inf, header)

    # What the flow needs of it.

    def now(self) -> float:
        """Monotonic seconds, on the clock that everything here is counted by."""
        return self._monotonic()

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

    def token_for(
        self, request: Request, *, is_async: bool, rejected: Token | None = None
    ) -> Generator[Wait, None, Token]:
        """The token for `request`, and errors that are the client's own as well."""
        snapshot, state = self._snapshot, self.store.state
        if rejected is None and snapshot.state is state and state.token is not None and self.now() < snapshot.until:
            return state.token
        try:
            token = yield from self._refresher.token(is_async=is_async, rejected=rejected)
        except ReauthError as error:
            raise in_request(error, self.face.transport_error, request) from error.__cause__
        snapshot, state = self._snapshot, self.store.state
        if snapshot.state is not state or self.now() >= snapshot.until:  # of all that waited, one takes it
            self._take_snapshot(state)
        return token

    def _after_401(self, snapshot: Snapshot, request: Request, response: Response, *, is_async: bool) -> Plan:
        token = cast("Token", cast("AuthState", snapshot.state).token)
        if self.is_refused(response, token):
            sent = Sent(token, None, [(b"Authorization", snapshot.header.encode())], request.url)
            yield from after_refusal(self, request, sent, response, is_async=is_async)


def _check(name: str, value: object, kinds: tuple[type, ...], what: str) -> None:
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {what}, not {type(value).__name__}.")
