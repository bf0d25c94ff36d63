"""What both ways of signing in share: who asks, whom, and for what; and what becomes of the last answer."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType
from typing import Any, cast

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import ReauthError, RefreshError, drop_frames, in_ascii, quoted, take_refresh_token
from httpx_reauth._request.packages import Answer
from httpx_reauth._state.policy import is_refusal
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

_TIMEOUT = 5.0  # seconds to connect and to send, as a grant's
_LATER = frozenset({408, 425, 429})  # statuses that say so, beside 5xx
_BEGIN_ANEW = "Nobody is signed in; to try again, begin a new sign-in."
_OFFLINE = "offline_access"  # the scope that brings a refresh token (OpenID Connect Core 1.0 section 11)


class _Client(ClientGrant):
    """The program as a grant knows it: its settings are checked, and each request says who it is."""

    def flow(self, token: Token, /) -> Flow:
        raise NotImplementedError


class _Wire:
    """Sends the requests of one sign-in, and keeps what was sent: no error may repeat it."""

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
            del outcome  # it refers to this frame, which would refer to it

    def _outcome(self, request: TokenRequest | MetadataRequest) -> Any:
        """The answer, or the error in its place; also one that is not ours, as that of a hook of `client`."""
        settings = self._settings
        try:
            driver = Driver(settings.client, timeout=_TIMEOUT, allow_http=settings.allow_http, secrets=self._secrets)
            with driver:
                return driver.serve(request)
        except BaseException as error:  # noqa: BLE001 - it is raised by who calls this, without its frames
            hide_frames(error, settings)
            return error

    def clean(self, error: BaseException) -> BaseException:
        """`error` without secrets: neither in its words, nor in frames, nor in errors that it was made of."""
        redact(error, *self._secrets)
        drop_frames(error)
        take_refresh_token(error)  # nobody has been signed in whose token it could renew
        return error


@dataclass(frozen=True, repr=False)
class SignIn(Unpicklable):
    """The settings that both ways share; each of them says what they mean, and adds its steps."""

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
        object.__setattr__(self, "_client", replace(client, scope=None))  # which goes out once, with the person
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
        """What `extra` must not hold."""
        raise NotImplementedError

    def steps(self, clock: Clock = SYSTEM_CLOCK) -> Steps:
        """The sign-in as a generator without I/O: `httpx_reauth.signin.steps` says what it yields and gets."""
        raise NotImplementedError

    def run(self, *, show: ShowPrompt | None = None) -> Token:
        """Sign a person in, and wait for it.

        Args:
            show: gets what the person needs to know, and shows it; `str(prompt)` is plain text. By default it is
                printed to the standard error stream.

        Raises:
            SignInDenied: the person or the server said no.
            SignInExpired: nobody signed in before the time was over.
            RefreshError: the server cannot be reached, or it says that it cannot answer now.
            ReauthError: the base of them all; it also says that no port can be listened at.
        """
        wire = _Wire(self)
        try:
            return run(self.steps(), wire, show or _print)
        except (ReauthError, KeyboardInterrupt) as error:
            raise wire.clean(error)  # noqa: B904 - it is the same one

    async def arun(self, *, show: ShowPrompt | None = None) -> Token:
        """The same for async code, on asyncio and trio; `show` may be a coroutine function.

        A cancelled sign-in leaves no socket and no task behind. A request that is under way ends in its worker thread,
        and its answer is dropped.
        """
        wire = _Wire(self)
        try:
            return await arun(self.steps(), wire, show or _print)
        except ReauthError as error:
            raise wire.clean(error)  # noqa: B904 - it is the same one

    def _server(self) -> Generator[MetadataRequest, Answer | None, ServerMetadata]:
        """What is known of the server; yields what has to be asked for."""
        try:
            return (yield from self.issuer.discover(allow_http=self.allow_http))
        except ReauthError as error:
            raise ended(error) from error.__cause__

    def _token(self, answer: Answer, asked_at: float, server: ServerMetadata) -> Token:
        """The token in `answer`; what was asked for and not granted is logged.

        Raises:
            ReauthError: the answer is none.
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
        """The settings, but no secret and no further field."""
        return (
            f"{type(self).__name__}({self.issuer!r}, {self.client_id!r}, scope={self.scope!r}, "
            f"resource={self.resource!r})"
        )


def denied(refusal: ReauthError | Redirected) -> SignInDenied:
    """The end of a sign-in that somebody refused: the person, or a server that does not say "later"."""
    words = quoted(refusal.error, refusal.error_description)
    return SignInDenied(
        f"The sign-in was refused: {words}. Nobody is signed in; to try again, begin a new sign-in.",
        error=refusal.error,
        error_description=refusal.error_description,
        error_uri=refusal.error_uri,
    )


def ended(error: ReauthError) -> ReauthError:
    """`error` of a request of a sign-in, as the end of it: nothing is tried again unless a person begins anew."""
    if error.error is not None and not is_passing(error):
        return denied(error)
    if not isinstance(error, RefreshError):
        return error
    if is_transport_error(error.__cause__):
        why = in_ascii(f"there was no full answer ({type(error.__cause__).__name__}: {error.__cause__})")
        text = f"The server did not give a token: {why}. {_BEGIN_ANEW}"
    elif error.status_code not in (None, 200):
        text = f"The server did not give a token: it answered with status {error.status_code}. {_BEGIN_ANEW}"
    else:  # it says what is wrong with the answer, or with a function of the caller
        return in_place_of_again(error, _BEGIN_ANEW)
    end = RefreshError(
        text,
        retry_after=error.retry_after,
        status_code=error.status_code,
        error=error.error,
        error_description=error.error_description,
        error_uri=error.error_uri,
        extra=error.extra,
    )
    end.__cause__ = error.__cause__
    return end


def is_passing(error: ReauthError) -> bool:
    """May the same request succeed later?"""
    if not isinstance(error, RefreshError) or is_refusal(error):
        return False
    status = error.status_code
    if status is None:
        return error.__cause__ is not None  # the client's own error: there was no answer
    says_later = status >= 400 and error.error is not None  # else it were a refusal
    return says_later or status >= 500 or status in _LATER


def _print(prompt: object) -> None:
    print(prompt, file=sys.stderr, flush=True)  # noqa: T201 - how a person gets to see it
