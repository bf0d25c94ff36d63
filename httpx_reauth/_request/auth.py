"""The auth object: its settings, and the hot path of a request with a valid token."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from os import PathLike
from types import FunctionType
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import ReauthError, RefreshError, as_client_error
from httpx_reauth._request.exchange import DEFAULTS, ExchangePlan, ExchangeSource, Send, Sent, Settings
from httpx_reauth._request.origins import ANY_HTTPS, parse_origins
from httpx_reauth._state.arguments import (
    check,
    check_function,
    check_name,
    check_refresh,
    check_seconds,
    check_subclass,
    check_token,
    kind_of,
)
from httpx_reauth._state.state import State
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import NO_ACCESS_TOKEN, Refresh, Token
from httpx_reauth._tokens.manager import TokenManager, WaitFor
from httpx_reauth._tokens.source import TokenSource
from httpx_reauth._tokens.steps import arun_steps, run_steps
from httpx_reauth.storage.base import Storage, check_storage

if TYPE_CHECKING:
    from httpx_reauth._request.packages import Request, Response

RequestT = TypeVar("RequestT", bound="Request")
ResponseT = TypeVar("ResponseT", bound="Response")

_NONE = type(None)


class Snapshot:
    """The values that the hot path reads instead of the state.

    Attributes:
        state: the state from which the other values were made.
        until: until when the token of `state` may be used without another decision (monotonic seconds).
        hot_until: equal to `until`; or -inf if a request needs more than its header, e.g. a call of `authorize`.
        header: the value of `Authorization`.
    """

    __slots__ = ("header", "hot_until", "state", "until")

    def __init__(self, state: State | None, until: float, hot_until: float, header: str) -> None:
        self.state = state
        self.until = until
        self.hot_until = hot_until
        self.header = header


_NOTHING_YET = Snapshot(None, -math.inf, -math.inf, "")


class ReauthBase(ExchangeSource, Generic[RequestT, ResponseT]):
    """The common base of the `Reauth` for httpx and the `Reauth` for httpx2."""

    __slots__ = ("_snapshot",)

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
        read_body_of: Iterable[int] = (),
        buffer_request_body: bool = False,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_refresh(refresh)
        if token is not None:
            check_token("token", token, "token=...")
        check("store", store, (_NONE, TokenStore), "a TokenStore", _instead(store))
        if storage is not None:
            check_storage(storage, _instead(storage))
        check("clock", clock, (_NONE, Clock), "a Clock, something with monotonic() and time()")
        check_seconds("leeway", leeway, may_be_0=True)
        check_seconds("refresh_timeout", refresh_timeout, may_be_0=False)
        check("buffer_request_body", buffer_request_body, bool, "True or False")
        check_name(name)
        if authorize is not None:
            check_function("authorize", authorize, "authorize(request, token)")
        if is_rejected is not None:
            check_function("is_rejected", is_rejected, "is_rejected(response)")
        statuses, buffers = _statuses(read_body_of), buffer_request_body or self.requires_request_body
        if statuses and is_rejected is None:
            raise _no_is_rejected(min(statuses))
        self._origins = ANY_HTTPS if origins is None else parse_origins(origins, self._package.url)
        if ReauthBase not in type(self).__bases__:  # a class of the user's
            settings = {
                "authorize": (authorize, None),
                "is_rejected": (is_rejected, None),
                "origins": (origins, None),
                "storage": (storage, None),
                "read_body_of": (read_body_of, ()),
                "buffer_request_body": (buffer_request_body, False),
                "leeway": (leeway, 60.0),
                "refresh_timeout": (refresh_timeout, 30.0),
            }
            check_subclass(type(self), ReauthBase, settings)
        # All checks come before this line: a constructor that fails does not change the store, which others may use.
        self.store = TokenStore() if store is None else store
        if storage is not None:
            self.store._use_storage(storage)
        if name is not None and self.store._name is None:
            self.store._name = name
        counted_by = self.store._use_clock(clock or SYSTEM_CLOCK, token)
        self._manager = TokenManager(
            refresh, self.store, leeway=leeway, timeout=refresh_timeout, package=self._package.name
        )
        self._snapshot, self._monotonic = _NOTHING_YET, counted_by.monotonic
        is_default = authorize is None and is_rejected is None and not statuses and not buffers
        self._settings = DEFAULTS if is_default else Settings(authorize, is_rejected, statuses, buffers=buffers)

    # The next two functions contain the hot path, with the same lines. A shared function would cost the time that the
    # hot path saves. The rest of the flow is written once.

    def sync_auth_flow(self, request: RequestT) -> Generator[RequestT, ResponseT, None]:
        """Called by the sync client."""
        snapshot, origins, url = self._snapshot, self._origins, request.url
        if (
            snapshot.state is self.store._state
            and self._monotonic() < snapshot.hot_until
            and (
                (
                    url.scheme == origins.scheme
                    and (origins.host is None or (url.host == origins.host and url.port == origins.port))
                )
                or (url.scheme, url.host, url.port) in origins.known
            )
        ):
            request.headers["Authorization"] = snapshot.header
            response = yield request
            if response.status_code != 401:
                return
            plan = self._after_401(snapshot, request, response, is_async=False)
        else:
            plan = self._exchange(request, is_async=False)
        step: Send | None = run_steps(plan)
        while step is not None:
            step = run_steps(plan, (yield cast("RequestT", step.request)))

    async def async_auth_flow(self, request: RequestT) -> AsyncGenerator[RequestT, ResponseT]:
        """Called by the async client."""
        snapshot, origins, url = self._snapshot, self._origins, request.url
        if (
            snapshot.state is self.store._state
            and self._monotonic() < snapshot.hot_until
            and (
                (
                    url.scheme == origins.scheme
                    and (origins.host is None or (url.host == origins.host and url.port == origins.port))
                )
                or (url.scheme, url.host, url.port) in origins.known
            )
        ):
            request.headers["Authorization"] = snapshot.header
            response = yield request
            if response.status_code != 401:
                return
            plan = self._after_401(snapshot, request, response, is_async=True)
        else:
            plan = self._exchange(request, is_async=True)
        step: Send | None = await arun_steps(plan)
        while step is not None:
            step = await arun_steps(plan, (yield cast("RequestT", step.request)))

    def _take_snapshot(self, state: State, now: float) -> None:
        """Give the token of `state` to the hot path, if the token may be used without another decision."""
        token, until = state.token, self._manager.usable_until(state, now)
        if token is None or until <= now or self._is_for_no_header(token):
            return
        is_plain = self._settings is DEFAULTS and not self.requires_response_body
        header = f"{token.token_type} {token.access_token}" if is_plain else ""
        self._snapshot = Snapshot(state, until, until if is_plain else -math.inf, header)

    def _token_for(
        self, request: Request, *, is_async: bool, rejected: Token | None = None, began: State
    ) -> Generator[WaitFor, None, Token]:
        snapshot, state = self._snapshot, self.store._state
        if rejected is None and snapshot.state is state and self._monotonic() < snapshot.until:
            return cast("Token", state.token)
        try:
            token = yield from self._manager.token(is_async=is_async, rejected=rejected, began=began)
            if self._is_for_no_header(token):
                raise _no_access_token()
        except ReauthError as error:
            package = self._package
            raise as_client_error(error, package.client_errors, package.transport_error, request) from error.__cause__
        snapshot, state, now = self._snapshot, self.store._state, self._monotonic()
        if snapshot.state is not state or now >= snapshot.until:  # only the first of all waiters does this
            self._take_snapshot(state, now)
        return token

    def _is_for_no_header(self, token: Token) -> bool:
        """Is `token` no access token (its type is `N_A`), and is there no `authorize` that knows how to send it?"""
        return token.token_type == NO_ACCESS_TOKEN and self._settings.authorize is None

    def _after_401(self, snapshot: Snapshot, request: Request, response: Response, *, is_async: bool) -> ExchangePlan:
        state = cast("State", snapshot.state)
        token = cast("Token", state.token)
        if self._is_refused(response, token):
            sent = Sent(token, state, None, [(b"Authorization", snapshot.header.encode())], request.url)
            yield from self._after_refusal(request, sent, response, is_async=is_async)


def _show_as_methods_of_reauth() -> None:
    """Let a `TypeError` about a wrong argument, and the warning about a missing `await`, name the class `Reauth`."""
    for cls in (ReauthBase, ExchangeSource, TokenSource):
        for name, function in vars(cls).items():
            if isinstance(function, FunctionType):
                function.__qualname__ = f"Reauth.{name}"


_show_as_methods_of_reauth()


def _no_access_token() -> RefreshError:
    return RefreshError(
        "What the server issued is no access token (its type is N_A, RFC 8693 section 2.2.1), so the request was not "
        "sent. get_token() returns it, and a TokenExchangeGrant takes it as a subject_token. If it belongs on "
        "requests, say where: authorize=."
    )


def _no_is_rejected(status: int) -> TypeError:
    return TypeError(
        f"read_body_of={{{status}}} needs is_rejected=, the function that looks at these bodies. Without it, a 401 "
        "alone is a refusal. To judge by the status, leave out read_body_of and write is_rejected=lambda response: "
        f"response.status_code in {{401, {status}}}."
    )


def _statuses(statuses: Iterable[int]) -> frozenset[int]:
    """The statuses of `read_body_of`, checked."""
    must = "read_body_of must be a set of HTTP statuses, as in read_body_of={403}, not"
    if not isinstance(cast("object", statuses), Iterable) or isinstance(statuses, (str, bytes)):
        raise TypeError(f"{must} {kind_of(statuses)}.")
    checked = frozenset(statuses)
    for status in checked:
        if not isinstance(cast("object", status), int) or isinstance(status, bool):
            raise TypeError(f"{must} one of {kind_of(status)}.")
        if not 100 <= status <= 599:
            raise ValueError(f"{status:d} is not an HTTP status. Write, for example, read_body_of={{403}}.")
    return checked


def _instead(value: object) -> str:
    """For a message: the right argument for `value`, which was given as a store or a storage and is neither."""
    if isinstance(value, (str, PathLike)):
        return "For a file, write storage=FileStorage(path)."
    if isinstance(value, TokenStore):
        return "Write store=..."
    return "Write storage=..." if isinstance(value, Storage) else ""
