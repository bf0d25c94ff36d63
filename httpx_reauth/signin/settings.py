"""What both ways of signing in share: who asks, whom, and for what; and what becomes of the last answer."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import Any, cast

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import ReauthError, RefreshError
from httpx_reauth._request.packages import Answer
from httpx_reauth._token import Discreet, Token
from httpx_reauth.oauth.grants import ClientAuth
from httpx_reauth.oauth.issuer import Issuer, ServerMetadata, choose_client_auth
from httpx_reauth.oauth.request import FormFields, MetadataRequest, TokenRequest
from httpx_reauth.signin import posting
from httpx_reauth.signin.callback import Answer as Redirected
from httpx_reauth.signin.errors import SignInDenied
from httpx_reauth.signin.steps import ShowPrompt, Steps, arun, run

_log = logging.getLogger("httpx_reauth")

_LATER = frozenset({408, 425, 429})
_OFFLINE = "offline_access"  # the scope that brings a refresh token (OpenID Connect Core 1.0 section 11)


@dataclass(frozen=True, slots=True, repr=False)
class SignIn(Discreet):
    """The settings that both ways share; each of them says what they mean, and adds its steps."""

    issuer: Issuer
    client_id: str
    _: KW_ONLY
    client_secret: str | None = None
    client_auth: ClientAuth | None = None
    client: Any = None
    allow_http: bool = False
    scope: str | Sequence[str] | None = None
    resource: str | Sequence[str] | None = None
    extra: FormFields = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.issuer), Issuer):
            raise TypeError(
                f"{type(self).__name__} takes an Issuer first, not {type(self.issuer).__name__}. Write "
                'Issuer("https://id.example.com"), or Issuer.of(token_endpoint="https://...", ...) for a server '
                "without a metadata document."
            )
        self.issuer.check(allow_http=self.allow_http)
        posting.Client(
            "https://id.example.com/token",
            self.client_id,
            self.client_secret,
            client_auth=self.client_auth or "client_secret_basic",
        )
        scope = self.scope if isinstance(self.scope, str) else " ".join(self.scope or ())
        object.__setattr__(self, "scope", scope or None)
        resource = (self.resource,) if isinstance(self.resource, str) else tuple(self.resource or ())
        object.__setattr__(self, "resource", resource or None)
        taken = sorted(self._own_fields.intersection(self.extra))
        if taken:
            raise ValueError(f"extra must not hold {', '.join(taken)}: the sign-in sends that itself.")
        object.__setattr__(self, "extra", MappingProxyType(dict(self.extra)))

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
        try:
            return run(self.steps(), self._post, show or _print)
        except (ReauthError, KeyboardInterrupt) as error:
            raise _without_frames(error)  # noqa: B904 - it is the same one

    async def arun(self, *, show: ShowPrompt | None = None) -> Token:
        """The same for async code, on asyncio and trio; `show` may be a coroutine function.

        A cancelled sign-in leaves no socket and no task behind. A request that is under way ends in its worker thread,
        and its answer is dropped.
        """
        try:
            return await arun(self.steps(), self._post, show or _print)
        except ReauthError as error:
            raise _without_frames(error)  # noqa: B904 - it is the same one

    def _post(self, request: TokenRequest | MetadataRequest) -> Any:
        return posting.post(request, self.client, allow_http=self.allow_http)

    def _request(self, server: ServerMetadata, endpoint: str, form: FormFields) -> TokenRequest:
        """`form` for that endpoint, with the client's authentication and the resource (RFC 8707 section 2)."""
        if self.resource:
            form = {**form, "resource": self.resource}
        method = self.client_auth or choose_client_auth(server, has_secret=self.client_secret is not None)
        return posting.authenticated(
            server.endpoint(endpoint),
            form,
            self.client_id,
            self.client_secret,
            cast("ClientAuth", method),
            allow_http=self.allow_http,
        )

    def _token(self, answer: Answer, asked_at: float, server: ServerMetadata) -> Token:
        """The token in `answer`; what was asked for and not granted is logged.

        Raises:
            ReauthError: the answer is none.
        """
        asked = cast("str | None", self.scope)
        token = Token(scope=asked).renewed(Token.from_response(answer), asked_at)  # RFC 6749 section 5.1
        missing = sorted(set((asked or "").split()) - set((token.scope or "").split()))
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


def _without_frames(error: BaseException) -> BaseException:
    """`error`, whose frames are forgotten, its causes' too: they hold codes and verifiers in their local variables.

    So is what a traceback would not show: the errors from which ours were made, in the server's own words.
    """
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            one.__traceback__ = None
            if one.__suppress_context__:
                one.__context__ = None
            waiting += [one.__cause__, one.__context__]
    return error


def denied(refusal: ReauthError | Redirected) -> SignInDenied:
    """The end of a sign-in that somebody refused: the person, or a server that does not say "later"."""
    words = f"{refusal.error}" + (f" ({refusal.error_description})" if refusal.error_description else "")
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
    if not isinstance(error, RefreshError) or (error.__cause__ is None and error.status_code in (None, 200)):
        return error  # it says what is wrong with the answer
    why = f"it answered with status {error.status_code}"
    if error.status_code is None:
        why = f"there was no full answer ({type(error.__cause__).__name__}: {error.__cause__})"
    end = RefreshError(
        f"The server did not give a token: {why}. Nobody is signed in; to try again, begin a new sign-in.",
        retry_after=error.retry_after,
        status_code=error.status_code,
        error=error.error,
        error_description=error.error_description,
        error_uri=error.error_uri,
    )
    end.__cause__ = error.__cause__
    return end


def is_passing(error: ReauthError) -> bool:
    """May the same request succeed later?"""
    if not isinstance(error, RefreshError):
        return False
    if error.status_code is None:
        return error.__cause__ is not None  # the client's own error: there was no answer
    return error.status_code >= 500 or error.status_code in _LATER


def _print(prompt: object) -> None:
    print(prompt, file=sys.stderr, flush=True)  # noqa: T201 - how a person gets to see it
