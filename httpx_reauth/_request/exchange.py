"""One HTTP request, where setting a header is not all: a token that is missing or refused, and settings of the user's.

1. **Where it goes.** If the token may not go to the request's origin (`origins.py`), the request is sent as it is, and
   its answer is returned as it is.
2. **Whose it is.** A request belongs to the session in which it begins. It never goes out, or goes out again, with a
   token of another session.
3. **The token.** It waits for a usable one. A failure is the client's own kind of error as well, and nothing is sent.
4. **The header.** The token goes onto the request, as `Authorization` or by the user's `authorize`. What was there
   before is remembered for the replay.
5. **Refused?** A 401 refuses the token, unless its challenges say that another one would be refused as well
   (`challenges.py`); where the user gives `is_rejected`, that decides. A body that it judges by is read before.
6. **A refusal is returned as it is**, and starts nothing, if one of these holds:
   - it is not about our token: after a redirect, the request that was refused is another one than ours. It counts if it
     went to the same origin (or from http up to https) and carried our token; then it is the one that is sent again,
     since to send ours again might order a second time;
   - somebody has signed in or out since the request was sent;
   - a token that was just issued was refused at this place (origin and path) a moment ago;
   - the token was renewed meanwhile, so the next request has a better one, and this one cannot be sent again.
7. **Else the token is renewed**, or the newer one is taken. The refusal is read before the wait, so that its connection
   is free: a small pool would starve. If it cannot be read, the token is renewed all the same, for the next request.
8. **One replay, and only a faithful one**: the same bytes, and the request as it was before the first token. If its
   body cannot be sent again, the refusal is returned.
9. **What the replay's answer says.** If it is accepted, renewing helps. If a fresh token is refused, renewing does not
   help there for a while. If the token ended on the way, or was adopted from a storage, the refusal says nothing.

All of this is written once, as generators without I/O. They yield three kinds of steps: `Read` a body, `WaitFor` a
refresh, `Send` a request. The sync and the async flow drive them (`auth.py`, `steps.py`).
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
from httpx_reauth._state.actions import Place, ReplayAccepted, ReplayRefused, ReplayStarted
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


ExchangePlan: TypeAlias = Generator[Step | Send, Any, None]


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


class Settings:
    """How the user wants requests and responses to be treated; most auth objects share one (`DEFAULTS`).

    Attributes:
        authorize: puts the token onto a request; None: as `Authorization`.
        is_rejected: does a response refuse the token? None: a 401 does.
        read_body_of: the statuses whose bodies are read before `is_rejected` is asked.
        buffers: a body that is a stream is read before `authorize` is called.
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
    """A source of tokens that puts them onto requests: the plans of one request, and the settings that they need."""

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
        """What follows the answer "your token is no good": a new token, and the request once more."""
        refused = self._refused_request(request, sent, response)
        if refused is None:
            return  # not our token, or not the place it was sent to
        state, place = self.store._state, _place_of(request.url)
        if state.session != sent.state.session:
            return  # what was sent for one person is not sent again for another
        is_current = sent.token is state.token
        if is_current and not policy.may_renew_for(state, place, self._monotonic()):
            return  # a fresh token was refused there just now: another one would not help
        can_replay = is_replayable(refused.stream, self._package.byte_stream)
        if not (is_current or can_replay):
            return  # the next request has a newer token anyway
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
        """The request once more, and what its answer says of the token."""
        store = self.store
        state = store._state
        sent = self._put_again(refused, request, sent, token)
        place, current = _place_of(request.url), state.current
        is_fresh = current is None or current.token is not token or not current.is_adopted
        if is_fresh:
            store._apply(ReplayStarted(place, session=sent.state.session, at=self._monotonic()))
        response = yield Send(refused)
        if self._needs_body(response):
            yield from _read(response)
        if not self._is_refused(response, token):
            if place in store._state.places or store._state.replays.count:
                store._apply(ReplayAccepted(place))
            return
        at = self._monotonic()
        ended = current is not None and current.token is token and at >= current.deadline
        ended = ended and current is not None and not current.without_lifetime
        if is_fresh and not ended and self._refused_request(refused, sent, response) is not None:
            self._back_off(place, sent.state.session, at)
        elif is_fresh:  # it says nothing about the next token, so the trial is over
            store._apply(ReplayAccepted(place))

    def _back_off(self, place: Place, session: int, at: float) -> None:
        """A 401 from `place` starts no refresh for a while, since the token that this would replace was fresh."""
        store = self.store
        if store._apply(ReplayRefused(place, session=session, at=at)):
            _log.warning(
                "%sThe API refused a token that had just been issued, so renewing it again would not help: for %g s, "
                "refusals from %s%s are returned as they are. Check the token's scope and audience.",
                log_prefix(store),
                store._state.places[place].until - at,
                *place,
            )

    @abstractmethod
    def _token_for(
        self, request: Request, *, is_async: bool, rejected: Token | None = None, began: State
    ) -> Generator[WaitFor, None, Token]:
        """The token for `request`, which began in the state `began`. Its errors are the client's own as well."""

    def _may_go_to(self, url: URL) -> bool:
        """May the token go to `url`? `InsecureOrigin` is raised for plain http to another machine."""
        may_go, self._origins = self._origins.may_go_to(url, log_prefix(self.store))
        return may_go

    def _put(self, request: Request, token: Token, state: State) -> Sent:
        """Put the token onto the request."""
        if self._settings.authorize is None:
            header = f"{token.token_type} {token.access_token}"
            request.headers["Authorization"] = header
            return Sent(token, state, None, [(b"Authorization", header.encode())], request.url)
        before, url = request.headers.raw, request.url
        _call_authorize(self._settings.authorize, request, token)
        return Sent(token, state, before, [header for header in request.headers.raw if header not in before], url)

    def _put_again(self, refused: Request, request: Request, sent: Sent, token: Token) -> Sent:
        """Put a newer token onto the request that was refused."""
        if self._settings.authorize is not None and sent.headers is not None:
            # As it was before the first time, since `authorize` may append to what it finds (a cookie, a query).
            before = [header for header in refused.headers.raw if header not in sent.added]
            cast("Any", refused).headers = cast("Any", type(refused.headers))(
                sent.headers if refused is request else before
            )
            if refused is request:
                cast("Any", refused).url = sent.url
        return self._put(refused, token, sent.state)

    def _needs_body(self, response: Response) -> bool:
        """Is the body of `response` to be read before it is asked whether that refuses the token?"""
        return self.requires_response_body or response.status_code in self._settings.read_body_of

    def _is_refused(self, response: Response, token: Token) -> bool:
        """Does `response` say that `token` is no good, so that another one may help?"""
        if self._settings.is_rejected is not None:
            return _call_is_rejected(self._settings.is_rejected, response)
        if response.status_code != 401:
            return False
        return not would_refuse_another(response.headers.get_list("WWW-Authenticate"), token.token_type)

    def _refused_request(self, request: Request, sent: Sent, response: Response) -> Request | None:
        """The request that was refused, if it is one that carried our token to where we had sent it."""
        try:
            refused: Request = response.request
        except RuntimeError:  # it is not set: the flow is driven without a client
            refused = request
        if refused is request:
            return request
        if not (is_same_place(origin_of(request.url), origin_of(refused.url)) and self._may_go_to(refused.url)):
            return None
        carried = refused.headers.raw
        return refused if sent.added and all(header in carried for header in sent.added) else None


def is_replayable(stream: object, byte_stream: type) -> bool:
    """Does `stream`, a request's body, yield the same bytes once more? What is not known to do so does not.

    httpx does not say, and gets it wrong silently: a spent iterator or file goes out as an empty body. Bytes can be
    sent again. A multipart form can if each of its files is bytes or can be rewound: httpx rewinds those before it
    sends them, the first time too, and sends what is left of the others.
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
    """Origin and path: where a refused token says something about the next one."""
    return format_origin(origin_of(url)), url.path


def _call_authorize(authorize: Callable[[Any, Token], object], request: Request, token: Token) -> None:
    """Let the user's `authorize` put the token onto `request`."""
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
    """What the user's `is_rejected` says of `response`."""
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
