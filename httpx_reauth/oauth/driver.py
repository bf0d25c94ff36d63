"""Runs a grant: sends its requests, repeats a request if that does no harm, and turns a failure into an error.

The rules depend on what a request spends:

|                                  | spends nothing                  | spends a refresh token or a code              |
|----------------------------------|---------------------------------|-----------------------------------------------|
| an attempt ends                  | after `timeout`                 | after `timeout` if it was not sent by then;   |
|                                  |                                 | else twice `refresh_timeout` after it was sent|
| the request is sent again after  | any transient failure           | a failure that shows that it was not processed|
| `invalid_grant`                  | is not final: tried again later | is final                                      |

All attempts begin within twice `timeout`. Each attempt has a new proof of the client's identity.

The traceback of an error has no frames of the grant: their local variables may be secrets, and a crash reporter sends
local variables to its server. The place of the error is recorded in words before the frames are removed.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import (
    ReauthError,
    RefreshError,
    SignInRequired,
    after_spending_nothing,
    drop_frames,
    in_ascii,
    keep_refresh_token,
    note_place,
    place_of,
    take_refresh_token,
    with_message,
)
from httpx_reauth._state.policy import means_later
from httpx_reauth._state.store import clock_of
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.worker import innermost_worker
from httpx_reauth.oauth.client_auth import Proof, in_every_spelling
from httpx_reauth.oauth.http import AnyClient, exchange, package_named, package_of
from httpx_reauth.oauth.redaction import redact
from httpx_reauth.oauth.request import (
    MetadataRequest,
    TokenRequest,
    check_token_url,
    form_of,
    origin_of,
    without_query,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from httpx_reauth.oauth.grant import Grant

_ATTEMPTS = 3  # attempts for one request; during its restart, a small service often sends two 503s before a response
_PAUSE = 0.2  # seconds before the second attempt, doubled before the third, minus a random part of up to a half
_WORTHWHILE = 0.5  # an attempt gets at least this part of `timeout`: a shorter one may lose the token in the response
_PATIENCE = 2.0  # the response to a request that spends something is read for this many times `refresh_timeout`

_AGAIN = re.compile(r"It is (?:asked|tried) again after a back-off\.$")  # many errors of a grant end with this

# h11 quotes an illegal line in its message. If a response is not HTTP, this line may be the token.
_QUOTED = re.compile(r"""\W*(?<!\w)(?:bytearray\(|b?['"]).*""", re.DOTALL)

Step: TypeAlias = TokenRequest | MetadataRequest


def run(
    grant: Grant,
    token: Token,
    *,
    refresh_timeout: float = 30.0,
    clock: Clock = SYSTEM_CLOCK,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[], float] = random.random,
) -> Token:
    """Send all requests of the grant's flow, and return its token.

    Args:
        grant: the grant.
        token: the last token.
        refresh_timeout: the `refresh_timeout` (seconds) if no `Reauth` has started this call. If one has, its own
            `refresh_timeout` is used.
        clock: the clock that measures requests and pauses. (The time of day comes from the clock of the `Reauth`.)
        sleep: the function that waits between two attempts.
        jitter: a function that returns a random number from 0 to 1, which shortens a pause.

    Raises:
        RefreshError: there was no response (httpx's error is the cause), or the response contains no token.
        SignInRequired: the flow raised it, or the server refuses the refresh token.
        InsecureOrigin: the token URL is plain http on another machine.
        TypeError: the grant's `client` is not a sync client of httpx or httpx2.
    """
    driver = Driver(
        grant.client,
        timeout=grant.timeout,
        allow_http=grant.allow_http,
        refresh_timeout=refresh_timeout,
        clock=clock,
        sleep=sleep,
        jitter=jitter,
        secrets=[token.access_token, token.refresh_token or ""],
    )
    outcome = _outcome(driver, grant, token)
    if not isinstance(outcome, BaseException):
        return outcome
    try:
        raise outcome
    finally:
        del driver, outcome  # the error refers to this frame; a variable here would make a reference cycle


def _outcome(driver: Driver, grant: Grant, token: Token) -> Token | BaseException:
    request: Step | None = None
    try:
        with driver, closing(grant.flow(token)) as flow:
            request = next(flow)
            while True:
                try:
                    answer = driver.serve(request)
                except RefreshError as error:
                    if not isinstance(request, MetadataRequest):
                        raise
                    request = flow.throw(error)  # the flow may have an older document to use
                else:
                    request = flow.send(answer)
    except StopIteration as end:
        issued: Token = end.value
        asked = request.data.get("scope") if isinstance(request, TokenRequest) else None
        # If the response has no scope, the granted scope is the requested one (RFC 6749 section 5.1).
        return replace(issued, scope=asked) if isinstance(asked, str) and issued.scope is None else issued
    except BaseException as error:  # noqa: BLE001 - the caller raises it, without its frames
        known = _meaning(error, request, driver)
        hide_frames(known, grant)
        return known


def _meaning(error: BaseException, request: Step | None, driver: Driver) -> BaseException:
    """Return the error to raise for `error`, without secrets. `request` is the last request that was sent."""
    spends = isinstance(request, TokenRequest) and request.spends is not None
    if isinstance(error, SignInRequired) and not spends:
        error = after_spending_nothing(error)
    if isinstance(error, RefreshError):
        error.resolve_retry_after(driver.calendar.time())
    redact(error, *driver.secrets)
    return error


def hide_frames(error: BaseException, source: object) -> None:
    """Remove the frames from `error`, since their local variables may be secrets.

    `source` is a grant or a sign-in. If `error` is not an error of this library, the place at which it left `source` is
    added to it as a note.
    """
    note_place(error, source)
    place = place_of(error, source)
    if place and not isinstance(error, ReauthError):
        note = (
            f"It left {type(source).__name__} at {place}. More frames are not shown: their local variables hold "
            "secrets."
        )
        with suppress(AttributeError):
            cast("Any", error).__notes__ = [*getattr(error, "__notes__", ()), note]
    drop_frames(error)


def in_place_of_again(error: RefreshError, words: str) -> RefreshError:
    """Return a copy of `error` whose message ends with `words`, not with "It is tried again after a back-off".

    If the message does not end so, return `error` itself.
    """
    text = _AGAIN.sub(words, str(error))
    return error if text == str(error) else with_message(error, text)


@dataclass(slots=True, repr=False)
class Driver:
    """Sends the requests of one flow, one after the other, with one client.

    Attributes:
        client: the client that sends the requests. None: a new client, which is closed at the end.
        timeout: seconds for an attempt; see the table above.
        allow_http: the URLs may be plain http on another machine.
        refresh_timeout: the `refresh_timeout` (seconds) if no `Reauth` has started the flow. If one has, its own
            `refresh_timeout` is used.
        clock: the clock that measures requests and pauses.
        sleep: the function that waits between two attempts.
        jitter: a function that returns a random number from 0 to 1, which shortens a pause.
        calendar: the clock that has the time of day, for assertions and dates: that of the `Reauth`, if one has started
            the flow, else `clock`.
        secrets: all secrets that were sent, which no error may repeat; each request adds its own.
    """

    client: AnyClient | None
    _: KW_ONLY
    timeout: float
    allow_http: bool
    refresh_timeout: float = 30.0
    clock: Clock = SYSTEM_CLOCK
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    calendar: Clock = SYSTEM_CLOCK
    secrets: list[str] = field(default_factory=list[str])
    _package: Any = None
    _patience: float = 0.0
    _pauses: tuple[float, ...] = tuple(_PAUSE * 2**i for i in range(_ATTEMPTS - 1))
    _opened: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        worker = innermost_worker()
        self.calendar = self.clock if worker is None else clock_of(worker.store)
        if worker is not None:
            self.refresh_timeout = worker.deadline - worker.started
            if worker.store._state.refreshes.failures:  # the last refresh failed, so this one repeats no request
                self._pauses = ()
        self._patience = _PATIENCE * self.refresh_timeout
        if self.client is not None:
            self._package = package_of(self.client)  # the user's client, which the user closes
        else:
            self._package = package_named(None if worker is None else worker.package)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def serve(self, request: Step) -> Any:
        """Send `request`, and return its response, whatever the status is.

        If another thread has sent the same metadata request, wait for that one, and return None.

        Raises:
            RefreshError: there was no response, after `_ATTEMPTS` attempts at most.
            InsecureOrigin: the URL is plain http on another machine.
            ValueError: the URL is not an absolute http(s) URL, or has a fragment or a user name.
            TypeError: `request` is neither a `TokenRequest` nor a `MetadataRequest`.
        """
        if isinstance(request, MetadataRequest):
            if request.shared is not None:
                return self._wait_for(request.shared)
        elif not isinstance(cast("object", request), TokenRequest):
            raise TypeError(f"A flow yields a TokenRequest or a MetadataRequest, not {type(request).__name__}.")
        else:
            self.secrets += request.secrets
        check_token_url(request.url, allow_http=self.allow_http)
        if self.client is None:  # made before the time is measured, since this takes a moment
            own = self._package.Client(timeout=self.timeout, follow_redirects=False)
            self.client = self._opened.enter_context(own)
        end, pauses = self.clock.monotonic() + 2 * self.timeout, list(self._pauses)
        while True:
            outcome = self._attempt(request, end)
            asked_for = self._asked_to_wait(outcome, request)
            if asked_for is None or not pauses:
                break
            pause = asked_for + pauses.pop(0) * (1 - self.jitter() / 2)
            if self.clock.monotonic() + pause + _WORTHWHILE * self.timeout > end:
                break
            self.sleep(pause)
        if not isinstance(outcome, Exception):
            return outcome
        if isinstance(outcome, self._package.ProtocolError):
            _unquote(outcome)
        error = self._unanswered(request, outcome)
        keep_refresh_token(error, take_refresh_token(outcome))  # it was in the part that arrived
        raise error from outcome

    def _wait_for(self, ended: threading.Event) -> None:
        if not ended.wait(self._patience):
            raise RefreshError(
                f"Another request for the authorization server's document has been under way for {self._patience:g} s. "
                "It is tried again after a back-off."
            )

    def _attempt(self, request: Step, end: float) -> Any:
        """Return the response, or the package's `TransportError`."""
        if isinstance(request, MetadataRequest):
            return self._exchange(request, "GET", request.all_headers, None, end)
        auth = request.client_auth
        if auth is None:
            return self._post(request, Proof(), end)
        proof = auth.prove(self.calendar.time())
        self.secrets += proof.secrets
        outcome = self._post(request, proof, end)
        if proof.otherwise is not None and _says_invalid_client(outcome):
            first, proof = proof, proof.otherwise
            outcome = self._post(request, proof, end)
            if _says_invalid_client(outcome):
                auth.refused(first)
        if not isinstance(outcome, Exception) and outcome.status_code < 300 and _json(outcome).get("access_token"):
            auth.accepted(proof)
        return outcome

    def _post(self, request: TokenRequest, proof: Proof, end: float) -> Any:
        headers = {**proof.headers, **request.all_headers}
        fresh: Mapping[str, str] = {} if request.per_attempt is None else request.per_attempt()
        if not isinstance(cast("object", fresh), Mapping):
            raise TypeError(f"per_attempt must return a mapping of form fields, not {type(fresh).__name__}.")
        self.secrets += in_every_spelling(fresh.values())
        form = form_of({**request.data, **proof.fields, **fresh})
        return self._exchange(request, "POST", headers, form, end)

    def _exchange(self, request: Step, method: str, headers: dict[str, str], content: bytes | None, end: float) -> Any:
        try:
            return exchange(
                self.client,
                self._package,
                method,
                request.url,
                headers=headers,
                content=content,
                deadline=min(self.clock.monotonic() + self.timeout, end),
                patience=self._patience if _spends(request) else None,
                clock=self.clock,
            )
        except self._package.TransportError as error:
            return error
        except (self._package.InvalidURL, UnicodeError) as error:  # `UnicodeError`: IDNA cannot encode the host
            raise RefreshError(
                f"The URL of the {_kind(request)} is none to which {self._package.__name__} can send a request, so "
                "nothing was sent. Correct it."
            ) from error

    def _asked_to_wait(self, outcome: Any, request: Step) -> float | None:
        """Return the least number of seconds before `request` is sent again; None if it must not be sent again."""
        once = _spends(request)
        if isinstance(outcome, Exception):
            again = isinstance(outcome, self._never_sent) or (not once and isinstance(outcome, self._transient))
            return 0.0 if again else None
        status = outcome.status_code
        if status not in (429, 503) and (once or not means_later(status)):
            return None
        try:
            Token.from_response(outcome)
        except RefreshError as error:
            error.resolve_retry_after(self.calendar.time())
            if take_refresh_token(error) is not None:  # the server has rotated the refresh token
                return None
            if status == 429:  # if there is no `Retry-After`, a second request may make the limit longer
                return error.retry_after
            return error.retry_after or 0.0
        return None

    @property
    def _never_sent(self) -> tuple[type[Exception], ...]:
        package = self._package
        return (package.ConnectError, package.ConnectTimeout, package.PoolTimeout, package.ProxyError)

    @property
    def _never_sendable(self) -> tuple[type[Exception], ...]:
        return (self._package.UnsupportedProtocol, self._package.LocalProtocolError)

    @property
    def _transient(self) -> tuple[type[Exception], ...]:
        package = self._package
        return (package.TimeoutException, package.NetworkError, package.RemoteProtocolError)

    def _unanswered(self, request: Step, cause: Any) -> RefreshError:
        """Return the error for a request without a complete response."""
        method = "GET" if isinstance(request, MetadataRequest) else "POST"
        cause.request = self._package.Request(method, without_query(request.url))  # the real request has secrets
        why = in_ascii(f"{type(cause).__name__}: {cause}".rstrip(": "))
        what, where = _kind(request), origin_of(request.url)
        if isinstance(cause, self._never_sent + self._never_sendable):
            return RefreshError(
                f"The {what} never went out to {where} ({why}), so nothing was spent by it. "
                "It is tried again after a back-off."
            )
        in_time = ""
        if isinstance(cause, self._package.TimeoutException):
            is_read = _spends(request) and isinstance(cause, self._package.ReadTimeout)
            in_time = f" within {self._patience if is_read else self.timeout:g} s"
        unanswered = f"The {what} to {where} got no full answer{in_time} ({why})"
        if not _spends(request):
            return RefreshError(f"{unanswered}. It is tried again after a back-off.")
        return RefreshError(
            f"{unanswered}, so its outcome is unknown: the server may have processed it, and a rotated refresh token "
            "would be lost. If the next refresh says invalid_grant, sign in again."
        )


def _spends(request: Step) -> bool:
    return isinstance(request, TokenRequest) and request.spends is not None


def _kind(request: Step) -> str:
    return "token request" if isinstance(request, TokenRequest) else "metadata request"


def _json(outcome: Any) -> dict[str, Any]:
    """Return the JSON object in `outcome`; an empty one if it is not a response, or has no JSON object."""
    try:
        fields = json.loads(getattr(outcome, "content", b""))
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def _says_invalid_client(outcome: Any) -> bool:
    return _json(outcome).get("error") == "invalid_client"


def _unquote(error: Exception) -> None:
    """Remove the quoted bytes of the request or the response from `error`. Remove its cause, which quotes them, too."""
    error.args = (_QUOTED.sub("", str(error)),)
    error.__cause__ = error.__context__ = None
