"""The base class of both sign-ins: their common settings, the requests, and the check of the last response."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType
from typing import Any, cast

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import (
    ReauthError,
    RefreshError,
    drop_frames,
    in_ascii,
    quoted,
    take_refresh_token,
    with_message,
)
from httpx_reauth._request.packages import Answer
from httpx_reauth._state.policy import is_refusal, means_later
from httpx_reauth._token import Token, Unpicklable, lost_scopes
from httpx_reauth.oauth.client_auth import ClientAuth, Secret
from httpx_reauth.oauth.driver import Driver, hide_frames, in_place_of_again
from httpx_reauth.oauth.grants import ClientGrant, Flow, strings
from httpx_reauth.oauth.http import AnyClient, is_transport_error
from httpx_reauth.oauth.issuer import Issuer, ServerMetadata
from httpx_reauth.oauth.redaction import redact
from httpx_reauth.oauth.request import FormFields, MetadataRequest, TokenRequest
from httpx_reauth.signin.callback import Answer as Redirected
from httpx_reauth.signin.errors import SignInDenied
from httpx_reauth.signin.steps import ShowPrompt, Steps, arun, run

_log = logging.getLogger("httpx_reauth")

_TIMEOUT = 5.0  # seconds to connect and to send, as in a grant
_BEGIN_ANEW = "Nobody is signed in; to try again, begin a new sign-in."
_OFFLINE = "offline_access"  # the scope that brings a refresh token (OpenID Connect Core 1.0 section 11)


class _Client(ClientGrant):
    """The program as an OAuth client. The sign-in uses it to check the settings and to make token requests."""

    def flow(self, token: Token, /) -> Flow:
        raise NotImplementedError


class _Wire:
    """Sends the requests of one sign-in, and remembers their secrets, since no error may repeat them."""

    def __init__(self, settings: SignIn) -> None:
        self._settings = settings
        self._secrets: list[str] = []

    def __call__(self, request: TokenRequest | MetadataRequest) -> Any:
        outcome = self._outcome(request)
        if not isinstance(outcome, BaseException):
            return outcome
        try:
            raise outcome
        finally:
            del outcome  # the error refers to this frame; a variable here would make a reference cycle

    def _outcome(self, request: TokenRequest | MetadataRequest) -> Any:
        """Return the response, or the error that was raised. The error may come from a hook of `client`."""
        settings = self._settings
        try:
            driver = Driver(settings.client, timeout=_TIMEOUT, allow_http=settings.allow_http, secrets=self._secrets)
            with driver:
                return driver.serve(request)
        except BaseException as error:  # noqa: BLE001 - the caller raises it, without its frames
            hide_frames(error, settings)
            return error

    def clean(self, error: BaseException) -> BaseException:
        """Return `error` after removing the secrets from its message, its frames, and its cause."""
        redact(error, *self._secrets)
        drop_frames(error)
        take_refresh_token(error)  # nobody is signed in, so this refresh token must not be stored
        return error


@dataclass(frozen=True, repr=False)
class SignIn(Unpicklable):
    """The settings that both sign-ins share. Each sign-in documents them, and adds its steps."""

    issuer: Issuer
    client_id: str
    _: KW_ONLY
    client_secret: Secret = None
    client_auth: ClientAuth | None = None
    client: AnyClient | None = None
    allow_http: bool = False
    scope: str | Sequence[str] | None = None
    resource: str | Sequence[str] | None = None
    extra: FormFields = field(default_factory=lambda: MappingProxyType({}), hash=False)
    _client: _Client = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.issuer), Issuer):
            raise TypeError(
                f"{type(self).__name__} takes an Issuer first, not {type(self.issuer).__name__}. Write "
                'Issuer("https://id.example.com"), or Issuer.of(token_endpoint="https://...", ...) for a server '
                "without a metadata document."
            )
        client = _Client(
            self.issuer,
            self.client_id,
            self.client_secret,
            client_auth=self.client_auth,
            scope=self.scope,
            resource=self.resource,
            client=self.client,
            allow_http=self.allow_http,
        )
        object.__setattr__(self, "scope", client.scope)
        object.__setattr__(self, "resource", client.resource)
        object.__setattr__(self, "_client", replace(client, scope=None))  # the steps send the scope, and only once
        if not isinstance(cast("object", self.extra), Mapping):
            raise TypeError(f"extra must be a mapping of parameters, not {type(self.extra).__name__}.")
        taken = sorted(self._own_fields.intersection(self.extra))
        if taken:
            raise ValueError(f"extra must not hold {', '.join(taken)}: the sign-in sends that itself.")
        extra = {
            name: value if isinstance(value, str) else strings(f"extra[{name!r}]", value)
            for name, value in self.extra.items()
        }
        object.__setattr__(self, "extra", MappingProxyType(extra))

    @property
    def _own_fields(self) -> frozenset[str]:
        """The names that `extra` must not contain."""
        raise NotImplementedError

    def steps(self, clock: Clock = SYSTEM_CLOCK) -> Steps:
        """Return the sign-in as a generator without I/O. `httpx_reauth.signin.steps` documents the steps."""
        raise NotImplementedError

    def run(self, *, show: ShowPrompt | None = None) -> Token:
        """Sign a person in, and return their token. The call blocks until the person has signed in.

        Args:
            show: a function that gets the prompt and shows it to the person; `str(prompt)` is plain text. By default,
                the text is printed to the standard error stream.

        Raises:
            SignInDenied: the person or the server refused the sign-in.
            SignInExpired: nobody signed in before the time was over.
            RefreshError: the server cannot be reached, or cannot answer now.
            ReauthError: the program cannot listen at any of the ports. It is also the base class of the other three.
        """
        wire = _Wire(self)
        try:
            return run(self.steps(), wire, show or _print)
        except (ReauthError, KeyboardInterrupt) as error:
            raise wire.clean(error)  # noqa: B904 - it is the same error

    async def arun(self, *, show: ShowPrompt | None = None) -> Token:
        """Sign a person in, and return their token: `run` for async code, on asyncio and trio.

        `show` may be a coroutine function. A cancelled sign-in leaves no socket and no task behind. If a request is
        under way, it ends in its worker thread, and its response is dropped.
        """
        wire = _Wire(self)
        try:
            return await arun(self.steps(), wire, show or _print)
        except ReauthError as error:
            raise wire.clean(error)  # noqa: B904 - it is the same error

    def _server(self) -> Generator[MetadataRequest, Answer | None, ServerMetadata]:
        """Return the metadata of the server. Yields the requests for its document, if it has one."""
        try:
            return (yield from self.issuer.discover(allow_http=self.allow_http))
        except ReauthError as error:
            raise ended(error) from error.__cause__

    def _token(self, answer: Answer, asked_at: float, server: ServerMetadata) -> Token:
        """Return the token in `answer`. Log a warning for each requested scope that the server has not granted.

        Raises:
            ReauthError: `answer` contains no token.
        """
        asked = cast("str | None", self.scope)
        token = Token(scope=asked).renewed(Token.from_response(answer), asked_at)  # RFC 6749 section 5.1
        missing = lost_scopes(asked or "", token)
        if missing:
            _log.warning("The sign-in was granted less than was asked for: without the scope %s.", " ".join(missing))
        if token.refresh_token is None:
            hint = "Ask for the scope offline_access, which this server knows, to get one."
            if _OFFLINE not in (server.scopes_supported or ()):
                hint = "The server's documentation says how to ask for one."
            elif _OFFLINE in (asked or "").split():
                hint = (
                    "It was asked for by the scope offline_access; some servers also want extra={'prompt': 'consent'}."
                )
            _log.warning("The sign-in brought no refresh token, so it lasts as long as the access token. %s", hint)
        return token

    def __repr__(self) -> str:
        """The settings, without the secret and the `extra` fields."""
        return (
            f"{type(self).__name__}({self.issuer!r}, {self.client_id!r}, scope={self.scope!r}, "
            f"resource={self.resource!r})"
        )


def denied(refusal: ReauthError | Redirected) -> SignInDenied:
    """Return the error for a sign-in that the person or the server has refused."""
    words = quoted(refusal.error, refusal.error_description)
    return SignInDenied(
        f"The sign-in was refused: {words}. Nobody is signed in; to try again, begin a new sign-in.",
        error=refusal.error,
        error_description=refusal.error_description,
        error_uri=refusal.error_uri,
    )


def ended(error: ReauthError) -> ReauthError:
    """Return the error that ends a sign-in whose request failed with `error`.

    Its message does not say that the request is tried again: a person has to begin a new sign-in.
    """
    if error.error is not None and not is_passing(error):
        return denied(error)
    if not isinstance(error, RefreshError):
        return error
    if is_transport_error(error.__cause__):
        why = in_ascii(f"there was no full answer ({type(error.__cause__).__name__}: {error.__cause__})")
        text = f"The server did not give a token: {why}. {_BEGIN_ANEW}"
    elif error.status_code not in (None, 200):
        text = f"The server did not give a token: it answered with status {error.status_code}. {_BEGIN_ANEW}"
    else:  # the message of `error` explains what is wrong with the response, or with a function of the user
        return in_place_of_again(error, _BEGIN_ANEW)
    return with_message(error, text)


def is_passing(error: ReauthError) -> bool:
    """May the same request succeed later?"""
    if not isinstance(error, RefreshError) or is_refusal(error):
        return False
    status = error.status_code
    if status is None:
        return error.__cause__ is not None  # the cause is the client's error, so there was no response
    says_later = status >= 400 and error.error is not None  # other errors are refusals, which `is_refusal` has found
    return says_later or means_later(status)


def _print(prompt: object) -> None:
    print(prompt, file=sys.stderr, flush=True)  # noqa: T201 - the person must see it
