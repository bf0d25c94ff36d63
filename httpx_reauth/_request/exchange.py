"""What happens to a request beyond the hot path: header, send, 401, replay.

Written once, as generators without I/O. A driver of either colour serves their three kinds of steps: a request to
send, a flight to wait for, a body to read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from httpx_reauth._errors import SignInRequired
from httpx_reauth._request.origins import format_origin, is_same_place, origin_of
from httpx_reauth._request.packages import comes_from_package_of
from httpx_reauth._state import policy
from httpx_reauth._state.actions import Place, ReplayAccepted, ReplayRefused
from httpx_reauth._state.arguments import lost_awaitable
from httpx_reauth._state.state import State
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Token
from httpx_reauth._tokens.manager import Wait
from httpx_reauth._tokens.steps import Step

if TYPE_CHECKING:
    from httpx_reauth._request.packages import URL, Message, Request, Response

_log = logging.getLogger("httpx_reauth")


class Read(Step):
    """Read the body of `message`, a request or a response. What the plan gets for it is the error, if any."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message = message

    def run(self) -> Exception | None:
        """Read it on this thread. A response that cannot be read is closed, so that its connection is free."""
        try:
            self.message.read()
        except Exception as error:  # noqa: BLE001 - the plan decides when it is raised
            close = getattr(self.message, "close", None)  # a request has none
            if close is not None:
                close()
            return error
        return None

    async def arun(self) -> Exception | None:
        """Read it in this task, as above."""
        try:
            await self.message.aread()
        except Exception as error:  # noqa: BLE001 - as above
            aclose = getattr(self.message, "aclose", None)
            if aclose is not None:
                await aclose()
            return error
        return None


class Send:
    """Send `request`: a step for the client. What the plan gets for it is the response."""

    __slots__ = ("request",)

    def __init__(self, request: Request) -> None:
        self.request = request


Plan: TypeAlias = Generator[Step | Send, Any, None]


class Auth(Protocol):
    """What the flow needs of the auth object."""

    store: TokenStore
    authorize: Callable[[Any, Token], object] | None
    buffer_request_body: bool

    def now(self) -> float: ...
    def may_go_to(self, url: URL) -> bool: ...
    def needs_body(self, response: Response) -> bool: ...
    def is_refused(self, response: Response, token: Token) -> bool: ...
    def can_replay(self, request: Request) -> bool: ...
    def token_for(
        self, request: Request, *, is_async: bool, rejected: Token | None = None, began: State
    ) -> Generator[Wait, None, Token]: ...


class Sent:
    """What was put on a request.

    Attributes:
        token: the token.
        state: the state in which it was sent.
        headers: the headers that were there before, or None if only `Authorization` was set.
        added: the headers that carry the token.
        url: the URL as it was before.
    """

    __slots__ = ("added", "headers", "state", "token", "url")

    def __init__(
        self,
        token: Token,
        state: State,
        headers: list[tuple[bytes, bytes]] | None,
        added: list[tuple[bytes, bytes]],
        url: URL,
    ) -> None:
        self.token = token
        self.state = state
        self.headers = headers
        self.added = added
        self.url = url


def exchange(auth: Auth, request: Request, *, is_async: bool) -> Plan:
    """The whole exchange of one request."""
    if not auth.may_go_to(request.url):
        yield Send(request)
        return
    if auth.buffer_request_body and hasattr(request.stream, "__aiter__" if is_async else "__iter__"):
        yield from _read(request)
    began = auth.store._state
    token = yield from auth.token_for(request, is_async=is_async, began=began)
    state = auth.store._state
    sent = _put(auth, request, token, state if state.token is token else began)
    response = yield Send(request)
    if auth.needs_body(response):
        yield from _read(response)
    if auth.is_refused(response, token):
        yield from after_refusal(auth, request, sent, response, is_async=is_async)


def after_refusal(auth: Auth, request: Request, sent: Sent, response: Response, *, is_async: bool) -> Plan:
    """What follows the answer "your token is no good": a new token, and the request once more."""
    refused = _refused_request(auth, request, sent, response)
    if refused is None:
        return  # not our token, or not the place it was sent to
    state, place = auth.store._state, _place_of(request.url)
    if state.session != sent.state.session:
        return  # somebody has signed in or out since: what was sent for one person is not sent again for another
    is_current = sent.token is state.token
    if is_current and not policy.may_renew_for(state, place, auth.now()):
        return  # a fresh token was refused there just now: another one would not help
    can_replay = auth.can_replay(refused)
    if not (is_current or can_replay):
        return  # the next request has a newer token anyway
    # It is read so that its connection is free while this request waits: a small pool would starve. And where it cannot
    # be read, the next request needs a new token all the same.
    unread: Exception | None = yield Read(response)
    try:
        token = yield from auth.token_for(request, is_async=is_async, rejected=sent.token, began=sent.state)
    except SignInRequired:
        if policy.was_signed_in_anew(sent.state, auth.store._state):
            return
        raise
    if unread is not None:
        raise unread
    if not can_replay:
        _log.debug("Renewed the token, but the body of this request cannot be sent again: its 401 is returned.")
        return
    yield from _replay(auth, refused, request, sent, token)


def _replay(auth: Auth, refused: Request, request: Request, sent: Sent, token: Token) -> Plan:
    """The request once more, and what its answer says of the token."""
    store = auth.store
    state = store._state
    sent = _put_again(auth, refused, request, sent, token)
    response = yield Send(refused)
    if auth.needs_body(response):
        yield from _read(response)
    place = _place_of(request.url)
    if not auth.is_refused(response, token):
        if place in store._state.places or store._state.replays.count:
            store._apply(ReplayAccepted(place))
        return
    current, at = state.current, auth.now()
    is_fresh = current is None or current.token is not token or not current.is_adopted
    ended = current is not None and current.token is token and at >= current.deadline and not current.has_no_lifetime
    if is_fresh and not ended and _refused_request(auth, refused, sent, response) is not None:
        _back_off(auth, place, sent.state.session, at)


def _read(message: Message) -> Plan:
    error: Exception | None = yield Read(message)
    if error is not None:
        raise error


def _back_off(auth: Auth, place: Place, session: int, at: float) -> None:
    """A 401 from `place` starts no refresh for a while, since the token that this would replace was fresh."""
    store = auth.store
    if store._apply(ReplayRefused(place, session=session, at=at)):
        _log.warning(
            "The API refused a token that had just been issued, so renewing it again would not help: for %g s, "
            "refusals from %s%s are returned as they are. Check the token's scope and audience.",
            store._state.places[place].until - at,
            *place,
        )


def _place_of(url: URL) -> Place:
    """Origin and path: where a refused token says something about the next one."""
    return format_origin(origin_of(url)), url.path


def _put(auth: Auth, request: Request, token: Token, state: State) -> Sent:
    if auth.authorize is None:
        header = f"{token.token_type} {token.access_token}"
        request.headers["Authorization"] = header
        return Sent(token, state, None, [(b"Authorization", header.encode())], request.url)
    before, url = request.headers.raw, request.url
    try:
        answer = auth.authorize(request, token)
    except RuntimeError as error:
        if not comes_from_package_of(request, error):
            raise
        raise RuntimeError(
            "authorize reads the body of the request, which is a stream that has not been read, so the request was not "
            "sent. Write Reauth(..., buffer_request_body=True)."
        ) from error
    what = lost_awaitable(answer)
    if what is not None:
        raise TypeError(
            f"authorize returned {what}, so the token is not on the request, which was not sent. Write it as a plain "
            "`def` that does not wait."
        )
    return Sent(token, state, before, [header for header in request.headers.raw if header not in before], url)


def _put_again(auth: Auth, refused: Request, request: Request, sent: Sent, token: Token) -> Sent:
    if auth.authorize is not None and sent.headers is not None:
        # As it was before the first time, since `authorize` may append to what it finds (a cookie, a query).
        before = [header for header in refused.headers.raw if header not in sent.added]
        cast("Any", refused).headers = cast("Any", type(refused.headers))(
            sent.headers if refused is request else before
        )
        if refused is request:
            cast("Any", refused).url = sent.url
    return _put(auth, refused, token, sent.state)


def _refused_request(auth: Auth, request: Request, sent: Sent, response: Response) -> Request | None:
    """The request that was refused, if it is one that carried our token to where we had sent it.

    After a redirect that is another request than ours: to send ours once more might order a second time.
    """
    try:
        refused: Request = response.request
    except RuntimeError:  # whoever drives the flow without a client did not say
        refused = request
    if refused is request:
        return request
    if not (is_same_place(origin_of(request.url), origin_of(refused.url)) and auth.may_go_to(refused.url)):
        return None
    carried = refused.headers.raw
    return refused if sent.added and all(header in carried for header in sent.added) else None
