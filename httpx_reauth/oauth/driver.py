"""Runs a grant: sends what it asks for, repeats what may be repeated, and says what a failure means.

What a request spends decides what may happen to it:

|                                  | spends nothing                  | spends a refresh token or a code              |
|----------------------------------|---------------------------------|-----------------------------------------------|
| an attempt ends                  | after `timeout`                 | after `timeout` if it was not sent by then;   |
|                                  |                                 | else twice `refresh_timeout` after it was sent|
| it is sent again after           | any transient failure           | a failure that shows that it was not processed|
| `invalid_grant`                  | passes: tried again, later      | is final                                      |

All attempts begin within twice `timeout`. The client authenticates anew for each.

A failure leaves here without the frames that it went through: the secrets are their local variables, which a crash
reporter sends along. What matters of them, the place, is put into words first.
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

_ATTEMPTS = 3  # of one request: "503 twice, then an answer" is what the restart of a small service looks like
_PAUSE = 0.2  # seconds before the second attempt, doubled before the third; less up to half of it
_WORTHWHILE = 0.5  # of `timeout`: an attempt with less time than that may rather lose a token than bring one
_PATIENCE = 2.0  # of `refresh_timeout`, for which the answer to a request that spent something is read

_AGAIN = re.compile(r"It is (?:asked|tried) again after a back-off\.$")  # as many errors of a grant end

# What h11 quotes of an illegal line: where the answer is no HTTP, that may be the very token.
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
    """What the grant's flow returns for `token`, once everything that it yields has been sent.

    Args:
        grant: the grant.
        token: the last token.
        refresh_timeout: that of the `Reauth` (seconds), where the caller runs inside of none.
        clock: by which requests and pauses are timed. (What time it is, the clock of the `Reauth` says.)
        sleep: waits between two attempts.
        jitter: a number from 0 to 1, by which the pauses differ.

    Raises:
        RefreshError: there was no answer (httpx's error is the cause), or none with a token.
        SignInRequired, InsecureOrigin: as the flow and its token URL have it.
        TypeError: the grant's `client` is no sync client of httpx or httpx2.
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
        del driver, outcome  # it refers to this frame, which would refer to it


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
                    request = flow.throw(error)  # it may have an older document to go on with
                else:
                    request = flow.send(answer)
    except StopIteration as end:
        issued: Token = end.value
        asked = request.data.get("scope") if isinstance(request, TokenRequest) else None
        # A scope that is not answered is the one that was asked for (RFC 6749 section 5.1).
        return replace(issued, scope=asked) if isinstance(asked, str) and issued.scope is None else issued
    except BaseException as error:  # noqa: BLE001 - it is raised by who calls this, without its frames
        known = _meaning(error, request, driver)
        hide_frames(known, grant)
        return known


def _meaning(error: BaseException, request: Step | None, driver: Driver) -> BaseException:
    """What `error` means to those who wait for a token, where `request` is the last that was sent."""
    spends = isinstance(request, TokenRequest) and request.spends is not None
    if isinstance(error, SignInRequired) and not spends:
        error = after_spending_nothing(error)
    if isinstance(error, RefreshError):
        error.resolve_retry_after(driver.calendar.time())
    redact(error, *driver.secrets)
    return error


def hide_frames(error: BaseException, source: object) -> None:
    """Take the frames from `error`, since their local variables hold secrets.

    Where an error that is not ours left `source`, a grant or a sign-in, is put into words first.
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
    """`error` with `words` where it says that the same is tried again; the same object if it does not say so."""
    text = _AGAIN.sub(words, str(error))
    if text == str(error):
        return error
    said_once = RefreshError(
        text,
        retry_after=error.retry_after,
        status_code=error.status_code,
        error=error.error,
        error_description=error.error_description,
        error_uri=error.error_uri,
        extra=error.extra,
    )
    said_once.__cause__ = error.__cause__
    return said_once


@dataclass(slots=True, repr=False)
class Driver:
    """Sends the requests of one flow, one after the other, by one client.

    Attributes:
        client: the client that sends them; None: a new one, which is closed at the end.
        timeout: seconds for an attempt; see above.
        allow_http: they may go to plain http on another machine.
        refresh_timeout: that of the `Reauth` (seconds), where the caller runs inside of none.
        clock: by which requests and pauses are timed.
        sleep: waits between two attempts.
        jitter: a number from 0 to 1, by which the pauses differ.
        calendar: says what time it is, for assertions and dates: the clock of the `Reauth`; outside of any, `clock`.
        secrets: everything that was sent and that no error may repeat; grows with each request.
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
            if worker.store._state.refreshes.failures:  # somebody is in trouble already
                self._pauses = ()
        self._patience = _PATIENCE * self.refresh_timeout
        if self.client is not None:
            self._package = package_of(self.client)  # the user's, who closes it
        else:
            self._package = package_named(None if worker is None else worker.package)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def serve(self, request: Step) -> Any:
        """The answer to `request`, whatever its status; None if somebody else was asking for it.

        Raises:
            RefreshError: there was none, after `_ATTEMPTS` attempts at most.
            InsecureOrigin, ValueError: it must not go to that URL.
        """
        if isinstance(request, MetadataRequest):
            if request.shared is not None:
                return self._wait_for(request.shared)
        elif not isinstance(cast("object", request), TokenRequest):
            raise TypeError(f"A flow yields a TokenRequest or a MetadataRequest, not {type(request).__name__}.")
        else:
            self.secrets += request.secrets
        check_token_url(request.url, allow_http=self.allow_http)
        if self.client is None:  # it takes a moment to make, which is not the server's
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
        keep_refresh_token(error, take_refresh_token(outcome))  # it came before the answer broke off
        raise error from outcome

    def _wait_for(self, ended: threading.Event) -> None:
        if not ended.wait(self._patience):
            raise RefreshError(
                f"Another request for the authorization server's document has been under way for {self._patience:g} s. "
                "It is tried again after a back-off."
            )

    def _attempt(self, request: Step, end: float) -> Any:
        """The answer, or the package's `TransportError`."""
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
        except (self._package.InvalidURL, UnicodeError) as error:  # the latter: a host that IDNA does not know
            raise RefreshError(
                f"The URL of the {_kind(request)} is none to which {self._package.__name__} can send a request, so "
                "nothing was sent. Correct it."
            ) from error

    def _asked_to_wait(self, outcome: Any, request: Step) -> float | None:
        """The seconds to wait at least before `request` is sent again, or None if it must not be."""
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
            if take_refresh_token(error) is not None:  # what was sent has been spent, whatever the status says
                return None
            if status == 429:  # a server that counts, and does not say until when: another request may cost more
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
        """What a request without an answer means for those who wait for the token."""
        method = "GET" if isinstance(request, MetadataRequest) else "POST"
        cause.request = self._package.Request(method, without_query(request.url))  # the one that was sent has secrets
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
    """The JSON object that an answer is; an empty one if it is none, or no answer."""
    try:
        fields = json.loads(getattr(outcome, "content", b""))
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def _says_invalid_client(outcome: Any) -> bool:
    return _json(outcome).get("error") == "invalid_client"


def _unquote(error: Exception) -> None:
    """Take out of `error` what it quotes of the bytes that came or went; what it was made of quotes them, too."""
    error.args = (_QUOTED.sub("", str(error)),)
    error.__cause__ = error.__context__ = None
