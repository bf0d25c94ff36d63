"""One HTTP request that needs more than a header: its token is missing or refused, or the user has special settings.

A *refusal* is a response that refuses the token: a 401, or a response for which the user's `is_rejected` returns True.

1. **The origin.** If the token may not be sent to the request's origin (`origins.py`), the request is sent unchanged,
   and the caller gets the response.
2. **The session.** A request belongs to the session in which it begins, and is never sent with a token of another
   session. There is one exception: a request that began without a token may use the token of a sign-in.
3. **The token.** The request waits for a usable token. Without a usable token, nothing is sent. If the error is a
   `RefreshError`, it is the client's `TransportError` as well.
4. **The header.** The token is put on the request: in the header `Authorization`, or by the user's `authorize`. The
   headers from before are remembered for the replay.
5. **The response.** A 401 refuses the token, unless its challenges say that the server would refuse a new token as well
   (`challenges.py`). If the user gives `is_rejected`, that function alone decides. If it needs the body, the body is
   read first.
6. **The caller gets the refusal**, and no refresh starts, in four cases:
   - The refusal is not about our token. After a redirect, the refused request is another request than ours. Its refusal
     counts only if the redirected request was sent to the same origin (or from http up to https) with our token. In
     that case the redirected request is sent again: to send the first request again might order a second time.
   - Somebody has signed in or out since the request was sent.
   - This place (origin and path) refused a fresh token a moment ago.
   - The token was renewed meanwhile, and this request cannot be sent again.
7. **Otherwise the token is renewed**, or the newer token is used if there is one. No other request sends the refused
   token any more, unless this place has refused a fresh token before. Such a place says little about the token; and
   while the token endpoint is down, it would stop the requests to all other places. The refusal's body is read before
   the wait, to free the connection: a small pool could have no other. If the body cannot be read, the token is still
   renewed, for the next request.
8. **The request is sent again once, and only unchanged**: the same body, and the same headers as before the first
   token. If the body cannot be sent again, the caller gets the refusal.
9. **The second response.** If it is accepted, renewing helps at this place. If a fresh token is refused, no 401 from
   this place starts a refresh for a while. If the token expired meanwhile, or was found in a storage, a refusal says
   nothing about the place.

All of this is written once, as generators without I/O. The generators yield three kinds of steps: `Read` a body,
`WaitFor` a refresh, `Send` a request. The sync and the async flow run the steps (`auth.py`, `steps.py`).
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Generator
from typing import IO, TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

from httpx_reauth._errors import SignInRequired
from httpx_reauth._request.challenges import would_refuse_another
from httpx_reauth._request.origins import Origins, format_origin, is_same_place, origin_of
from httpx_reauth._request.packages import HttpPackage, comes_from_package_of
from httpx_reauth._state import policy
from httpx_reauth._state.actions import Place, ReplayAccepted, ReplayEnded, ReplayRefused, ReplayStarted, TokenRefused
from httpx_reauth._state.arguments import lost_awaitable
from httpx_reauth._state.state import State
from httpx_reauth._state.store import log_prefix
from httpx_reauth._token import Token
from httpx_reauth._tokens.source import TokenSource
from httpx_reauth._tokens.steps import Step

if TYPE_CHECKING:
    from httpx_reauth._request.packages import URL, Message, Request, Response
    from httpx_reauth._tokens.manager import WaitFor

_log = logging.getLogger("httpx_reauth")


class Read(Step):
    """A step: read the body of `message`, a request or a response. Its result is the error, or None."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message = message

    def run(self) -> Exception | None:
        """Read the body on this thread. A response that cannot be read is closed, to free its connection."""
        try:
            self.message.read()
        except Exception as error:  # noqa: BLE001 - the plan decides when it is raised
            close = getattr(self.message, "close", None)  # a request has none
            if close is not None:
                close()
            return error
        return None

    async def arun(self) -> Exception | None:
        """`run` for async code."""
        try:
            await self.message.aread()
        except Exception as error:  # noqa: BLE001 - as above
            aclose = getattr(self.message, "aclose", None)
            if aclose is not None:
                await aclose()
            return error
        return None


class Send:
    """A step for the client: send `request`. Its result is the response."""

    __slots__ = ("request",)

    def __init__(self, request: Request) -> None:
        self.request = request


ExchangePlan: TypeAlias = Generator[Step | Send, Any, None]


class Sent:
    """A record of the token that was put on a request.

    Attributes:
        token: the token.
        state: the state in which the request was sent.
        headers: all headers from before; None if only `Authorization` was set.
        added: the headers that contain the token.
        url: the URL from before.
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


class Settings:
    """The user's settings for requests and responses; most auth objects share one object (`DEFAULTS`).

    Attributes:
        authorize: puts the token on a request; None: in the header `Authorization`.
        is_rejected: says whether a response refuses the token; None: a 401 refuses the token.
        read_body_of: the statuses whose bodies are read before `is_rejected` is called.
        buffers: a request body that is a stream is read before `authorize` is called.
    """

    __slots__ = ("authorize", "buffers", "is_rejected", "read_body_of")

    def __init__(
        self,
        authorize: Callable[[Any, Token], object] | None = None,
        is_rejected: Callable[[Any], bool] | None = None,
        read_body_of: frozenset[int] = frozenset(),
        *,
        buffers: bool = False,
    ) -> None:
        self.authorize = authorize
        self.is_rejected = is_rejected
        self.read_body_of = read_body_of
        self.buffers = buffers


DEFAULTS = Settings()


class ExchangeSource(TokenSource):
    """A `TokenSource` that puts its token on requests: the plans of one request, and the settings that they need."""

    __slots__ = ("_monotonic", "_origins", "_settings")

    _package: ClassVar[HttpPackage]
    _monotonic: Callable[[], float]
    _origins: Origins
    _settings: Settings
    requires_request_body: bool
    requires_response_body: bool

    def _exchange(self, request: Request, *, is_async: bool) -> ExchangePlan:
        """The whole exchange of one request."""
        if not self._may_go_to(request.url):
            yield Send(request)
            return
        if self._settings.buffers and hasattr(request.stream, "__aiter__" if is_async else "__iter__"):
            yield from _read(request)
        began = self.store._state
        token = yield from self._token_for(request, is_async=is_async, began=began)
        state = self.store._state
        sent = self._put(request, token, state if state.token is token else began)
        response = yield Send(request)
        if self._needs_body(response):
            yield from _read(response)
        if self._is_refused(response, token):
            yield from self._after_refusal(request, sent, response, is_async=is_async)

    def _after_refusal(self, request: Request, sent: Sent, response: Response, *, is_async: bool) -> ExchangePlan:
        """Handle a refusal: get a new token, and send the request again."""
        refused = self._refused_request(request, sent, response)
        if refused is None:
            return  # the refusal is not about our token
        state, place = self.store._state, _place_of(request.url)
        if state.session != sent.state.session:
            return  # a request of one user is not sent again with the token of another user
        is_current = policy.is_current(state, sent.token)
        if is_current and not policy.may_renew_for(state, place, self._monotonic()):
            return  # this place refused a fresh token just now, so another one would not help
        can_replay = is_replayable(refused.stream, self._package.byte_stream)
        if not (is_current or can_replay):
            return  # the next request uses the newer token anyway
        if is_current and place not in state.places:
            self.store._apply(TokenRefused(cast("Token", state.token)))
        unread: Exception | None = yield Read(response)
        try:
            token = yield from self._token_for(request, is_async=is_async, rejected=sent.token, began=sent.state)
        except SignInRequired:
            if policy.was_signed_in_anew(sent.state, self.store._state):
                return
            raise
        if unread is not None:
            raise unread
        if not can_replay:
            _log.debug(
                "%sRenewed the token, but the body of this request cannot be sent again: its 401 is returned.",
                log_prefix(self.store),
            )
            return
        yield from self._replay(refused, request, sent, token)

    def _replay(self, refused: Request, request: Request, sent: Sent, token: Token) -> ExchangePlan:
        """Send the request again, and record what the response says about this place."""
        store = self.store
        state = store._state
        sent = self._put_again(refused, request, sent, token)
        place, session, current = _place_of(request.url), sent.state.session, state.current
        is_fresh = current is None or current.token is not token or not current.is_adopted
        is_on_trial = is_fresh and store._apply(ReplayStarted(place, session=session, at=self._monotonic()))
        try:
            response = yield Send(refused)
            if self._needs_body(response):
                yield from _read(response)
            is_refused = self._is_refused(response, token)
        except BaseException:  # the client closes the flow when the request fails, or is cancelled
            if is_on_trial:
                store._apply(ReplayEnded(place, session=session))
            raise
        if not is_refused:
            if place in store._state.places or store._state.replays.failures:
                store._apply(ReplayAccepted(place))
            return
        at = self._monotonic()
        ended = current is not None and current.token is token and policy.has_expired(current, at)
        if is_fresh and not ended and self._refused_request(refused, sent, response) is not None:
            self._back_off(place, session, at)
        elif is_on_trial:  # the refusal says nothing about this place
            store._apply(ReplayEnded(place, session=session))

    def _back_off(self, place: Place, session: int, at: float) -> None:
        """Start the back-off of `place`, which has refused a fresh token: for a while, its 401s start no refresh."""
        store = self.store
        is_changed = store._apply(ReplayRefused(place, session=session, at=at))
        back_off = store._state.places.get(place)
        if is_changed and back_off is not None:  # None: another request has just been accepted there
            _log.warning(
                "%sThe API refused a token that had just been issued, so renewing it again would not help: for %g s, "
                "refusals from %s%s are returned as they are. Check the token's scope and audience.",
                log_prefix(store),
                back_off.until - at,
                *place,
            )

    @abstractmethod
    def _token_for(
        self, request: Request, *, is_async: bool, rejected: Token | None = None, began: State
    ) -> Generator[WaitFor, None, Token]:
        """The token for `request`, which began in the state `began`. A `RefreshError` is a client's error as well."""

    def _may_go_to(self, url: URL) -> bool:
        """May the token be sent to `url`? Raises `InsecureOrigin` for plain http to another machine."""
        may_go, self._origins = self._origins.may_go_to(url, log_prefix(self.store))
        return may_go

    def _put(self, request: Request, token: Token, state: State) -> Sent:
        """Put the token on the request."""
        if self._settings.authorize is None:
            header = f"{token.token_type} {token.access_token}"
            request.headers["Authorization"] = header
            return Sent(token, state, None, [(b"Authorization", header.encode())], request.url)
        before, url = request.headers.raw, request.url
        _call_authorize(self._settings.authorize, request, token)
        return Sent(token, state, before, [header for header in request.headers.raw if header not in before], url)

    def _put_again(self, refused: Request, request: Request, sent: Sent, token: Token) -> Sent:
        """Put a newer token on the request that was refused."""
        if self._settings.authorize is not None and sent.headers is not None:
            # Restore the headers and the URL from before, since `authorize` may append to a cookie or a query.
            before = [header for header in refused.headers.raw if header not in sent.added]
            cast("Any", refused).headers = cast("Any", type(refused.headers))(
                sent.headers if refused is request else before
            )
            if refused is request:
                cast("Any", refused).url = sent.url
        return self._put(refused, token, sent.state)

    def _needs_body(self, response: Response) -> bool:
        """Must the body of `response` be read before `_is_refused` is called?"""
        return self.requires_response_body or response.status_code in self._settings.read_body_of

    def _is_refused(self, response: Response, token: Token) -> bool:
        """Does `response` refuse `token`, so that a new token may help?"""
        if self._settings.is_rejected is not None:
            return _call_is_rejected(self._settings.is_rejected, response)
        if response.status_code != 401:
            return False
        return not would_refuse_another(response.headers.get_list("WWW-Authenticate"), token.token_type)

    def _refused_request(self, request: Request, sent: Sent, response: Response) -> Request | None:
        """The request that was refused; None if it did not carry our token, or a redirect led to another origin."""
        try:
            refused: Request = response.request
        except RuntimeError:  # the response has no request: the flow runs without a client
            refused = request
        if refused is request:
            return request
        if not (is_same_place(origin_of(request.url), origin_of(refused.url)) and self._may_go_to(refused.url)):
            return None
        carried = refused.headers.raw
        return refused if sent.added and all(header in carried for header in sent.added) else None


def is_replayable(stream: object, byte_stream: type) -> bool:
    """Does `stream`, a request's body, yield the same bytes once more? If that is not certain, the answer is no.

    httpx does not check this: it would send a spent iterator or file as an empty body. Bytes can be sent again. A
    multipart form can be sent again if each of its files is bytes or can be rewound: httpx rewinds such a file each
    time before it sends it. Of any other file, it sends the rest.
    """
    if isinstance(stream, byte_stream):
        return True
    fields: Any = getattr(stream, "fields", None)
    if not isinstance(fields, list) or not hasattr(stream, "boundary"):
        return False
    return all(_is_rewindable(getattr(field, "file", b"")) for field in cast("list[object]", fields))


def _is_rewindable(file: object) -> bool:
    if isinstance(file, (str, bytes)):
        return True
    try:
        return not cast("IO[bytes]", file).closed and cast("IO[bytes]", file).seekable()
    except (AttributeError, ValueError, OSError):
        return False


def _read(message: Message) -> ExchangePlan:
    error: Exception | None = yield Read(message)
    if error is not None:
        raise error


def _place_of(url: URL) -> Place:
    """Origin and path of `url`. If this place refuses a fresh token, it is likely to refuse the next one."""
    return format_origin(origin_of(url)), url.path


def _call_authorize(authorize: Callable[[Any, Token], object], request: Request, token: Token) -> None:
    """Let the user's `authorize` put the token on `request`."""
    try:
        answer = authorize(request, token)
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


def _call_is_rejected(is_rejected: Callable[[Any], bool], response: Response) -> bool:
    """The result of the user's `is_rejected` for `response`."""
    try:
        verdict = is_rejected(response)
    except RuntimeError as error:
        if not comes_from_package_of(response, error):
            raise
        raise RuntimeError(
            f"is_rejected reads the body of an answer with status {response.status_code}, and that body has not been "
            f"read yet. Write Reauth(..., read_body_of={{{response.status_code}}}): the bodies of these statuses are "
            "read before is_rejected is asked."
        ) from error
    what = lost_awaitable(verdict)
    if what is not None:
        raise TypeError(
            f"is_rejected returned {what}, so whether the token was refused is unknown. Write it as a plain `def` that "
            "returns True or False."
        )
    return bool(verdict)
