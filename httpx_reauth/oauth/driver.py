"""Runs a grant: posts what it asks for, repeats what may be repeated, and says what a failure means."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import ReauthError, RefreshError, SignInRequired, hide
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.flight import failures_so_far
from httpx_reauth.oauth.http import post
from httpx_reauth.oauth.request import TokenRequest, check_token_url, origin_of, without_query

if TYPE_CHECKING:
    from httpx_reauth.oauth.grant import Grant

_ATTEMPTS = 3  # of one request: "503 twice, then an answer" is what the restart of a small service looks like
_PAUSE = 0.2  # seconds before the second attempt, doubled before the third; less up to half of it
_WORTHWHILE = 0.5  # of `timeout`: an attempt with less time than that may rather lose a token than bring one

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_NEVER_SENDABLE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
_TRANSIENT = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)

# What h11 quotes of an illegal line: where the answer is no HTTP, that may be the very token.
_QUOTED = re.compile(r"""\W*(?<!\w)(?:bytearray\(|b?['"]).*""", re.DOTALL)


def run(
    grant: Grant,
    token: Token,
    *,
    clock: Clock = SYSTEM_CLOCK,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[], float] = random.random,
) -> Token:
    """What the grant's flow returns for `token`, once everything that it yields has been posted.

    Raises:
        RefreshError: there was no answer (httpx's error is the cause), or none with a token.
        SignInRequired, InsecureOrigin: as the flow and its token URL have it.
    """
    driver = _Driver(grant, clock, sleep, jitter)
    secrets = [token.access_token, token.refresh_token or ""]
    flow = grant.flow(token)
    try:
        request = next(flow)
        while True:
            secrets += request.secrets
            request = flow.send(driver.ask(request))
    except StopIteration as end:
        answer: Token = end.value
        return answer
    except ReauthError as error:
        if isinstance(error, RefreshError):
            error.resolve_retry_after(clock.time())
        hide(error, *secrets)
        raise
    finally:
        flow.close()


@dataclass(frozen=True, slots=True)
class _Driver:
    grant: Grant
    clock: Clock
    sleep: Callable[[float], None]
    jitter: Callable[[], float]

    def ask(self, request: TokenRequest) -> httpx.Response:
        """The answer to `request`, after `_ATTEMPTS` attempts at most and within twice the timeout."""
        check_token_url(request.url, allow_http=self.grant.allow_http)
        end = self.clock.monotonic() + 2 * self.grant.timeout
        pauses = [] if failures_so_far() else [_PAUSE * 2**i for i in range(_ATTEMPTS - 1)]
        with self._client() as client:
            while True:
                outcome = self._attempt(client, request, end)
                asked_for = self._asked_to_wait(outcome, request)
                if asked_for is None or not pauses:
                    break
                pause = asked_for + pauses.pop(0) * (1 - self.jitter() / 2)
                if self.clock.monotonic() + pause + _WORTHWHILE * self.grant.timeout > end:
                    break
                self.sleep(pause)
        if isinstance(outcome, httpx.Response):
            return outcome
        if isinstance(outcome, httpx.ProtocolError):
            _unquote(outcome)
        raise self._unanswered(request, outcome) from outcome

    def _client(self) -> AbstractContextManager[httpx.Client]:
        if self.grant.client is not None:
            return nullcontext(self.grant.client)  # the user's, who closes it
        return httpx.Client(timeout=self.grant.timeout, follow_redirects=False)

    def _attempt(
        self, client: httpx.Client, request: TokenRequest, end: float
    ) -> httpx.Response | httpx.TransportError:
        try:
            return post(client, request, min(self.clock.monotonic() + self.grant.timeout, end), self.clock)
        except httpx.TransportError as error:
            return error

    def _asked_to_wait(self, outcome: httpx.Response | httpx.TransportError, request: TokenRequest) -> float | None:
        """The seconds to wait at least before `request` is sent again, or None if it must not be."""
        if isinstance(outcome, httpx.TransportError):
            again = isinstance(outcome, _NEVER_SENT) or (request.idempotent and isinstance(outcome, _TRANSIENT))
            return 0.0 if again else None
        status = outcome.status_code
        if status not in (429, 503) and not (request.idempotent and (status >= 500 or status in (408, 425))):
            return None
        try:
            Token.from_response(outcome)
        except RefreshError as error:
            error.resolve_retry_after(self.clock.time())
            return error.retry_after or 0.0
        except SignInRequired:  # the refresh token is dead, whatever the status
            pass
        return None

    def _unanswered(self, request: TokenRequest, cause: httpx.TransportError) -> RefreshError:
        """What a request without an answer means for whoever waits for the token."""
        cause.request = httpx.Request("POST", without_query(request.url))  # the one that was sent holds the secrets
        why = f"{type(cause).__name__}: {cause}".rstrip(": ")
        where = origin_of(request.url)
        if isinstance(cause, _NEVER_SENT + _NEVER_SENDABLE):
            return RefreshError(
                f"The token request never went out to {where} ({why}), so nothing was spent by it. "
                "It is tried again after a back-off."
            )
        in_time = f" within {self.grant.timeout:g} s" if isinstance(cause, httpx.TimeoutException) else ""
        unanswered = f"The token request to {where} got no full answer{in_time} ({why})"
        if request.idempotent:
            return RefreshError(f"{unanswered}. It is tried again after a back-off.")
        return RefreshError(
            f"{unanswered}, so its outcome is unknown: the server may have processed it, and a rotated refresh token "
            "would be lost. If the next refresh says invalid_grant, sign in again."
        )


def _unquote(error: httpx.ProtocolError) -> None:
    """Take out of `error` what it quotes of the bytes that came or went; what it was made of quotes them, too."""
    error.args = (_QUOTED.sub("", str(error)),)
    error.__cause__ = error.__context__ = None
