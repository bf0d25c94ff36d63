"""Signing in with the browser on this machine: the authorization code grant for native apps.

RFC 6749 section 4.1 with PKCE (RFC 7636), on a loopback address (RFC 8252 section 7.3), with `iss` (RFC 9207).
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import webbrowser
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from inspect import iscoroutinefunction
from typing import cast
from urllib.parse import urlencode

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import ReauthError
from httpx_reauth.oauth.client_auth import checked_seconds
from httpx_reauth.oauth.frames import hides_settings
from httpx_reauth.oauth.issuer import ServerMetadata
from httpx_reauth.signin.callback import Answer, Expected
from httpx_reauth.signin.errors import SignInDenied, SignInExpired
from httpx_reauth.signin.listener import ADDRESSES
from httpx_reauth.signin.redirect import AwaitRedirect, Open, Paste
from httpx_reauth.signin.settings import SignIn, denied, ended
from httpx_reauth.signin.steps import Listen, Steps

_RANDOM = 32  # bytes of a verifier and of a state; a verifier of 43 characters (RFC 7636 section 4.1)
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*")
_OWN_FIELDS = frozenset({
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "state",
    "code_challenge",
    "code_challenge_method",
    "scope",
    "resource",
})  # fmt: skip


@hides_settings
@dataclass(frozen=True, repr=False)
class BrowserSignIn(SignIn):
    """Signs a person in with a browser, and returns their token for `auth.sign_in(token)`.

    The authorization code grant with PKCE (S256, always), `state`, and `iss` where the server sends it. The browser
    brings the answer to a loopback address that listens before the browser opens, and closes with the answer. Where
    there is no browser (over SSH, in a container), the address is shown, and that of the last page can be pasted.

    Args:
        issuer: the server.
        client_id: the name under which it knows this program.
        client_secret: its password, if it has one; a program that people install can keep none (RFC 8252 section 8.5).
        client_auth: how the program shows that secret, or a key; None: what the server's document says, else Basic.
        client: a sync client of httpx or httpx2 with your proxy and TLS. It is not closed.
        allow_http: send secrets over plain http to another machine, too.
        scope: what to ask for, e.g. `"openid offline_access"`; None: the server's default.
        resource: where the token will be used, one URI or several (RFC 8707).
        extra: further parameters of the authorization request, e.g. `{"prompt": "consent", "login_hint": "me"}`.
        port: where to listen. 0: any free port, as servers have to admit for native apps (RFC 8252 section 7.3). A
            list, e.g. `[8400, 8401]`, where they are registered one by one: the first that is free is taken.
        host: the loopback address in the redirect URI: `127.0.0.1`, `::1` or `localhost`, whichever is registered.
            With `localhost` both addresses are listened at.
        path: the path of the redirect URI.
        open: opens the browser: gets the URL, and returns False if there is no browser. Called in a thread.
        paste: returns the address of the last page, as a person pasted it; called in a thread where there is no
            browser. One that takes an argument gets the address to open. `input` is one; it goes on after an answer
            that came by the loopback address. None: the program's terminal is read, if there is one (not on Windows).
        timeout: seconds for the person, from the opened browser to the answer.

    Raises:
        TypeError, ValueError: a setting cannot work; the message says which.
        InsecureOrigin: the server is plain http on another machine, without `allow_http`.

    Example:
        sign_in = BrowserSignIn(Issuer("https://id.example.com"), "my-cli", scope="openid offline_access")
        auth.sign_in(sign_in.run())
    """

    _: KW_ONLY
    port: int | Sequence[int] = 0
    host: str = "127.0.0.1"
    path: str = "/callback"
    open: Open = webbrowser.open
    paste: Paste | None = None
    timeout: float = 300.0

    def __post_init__(self) -> None:
        SignIn.__post_init__(self)
        ports = list(self.port) if isinstance(self.port, Sequence) else [self.port]
        if not ports or not all(_is_port(port) for port in ports):
            raise ValueError("port must be 0 (any free one), a number up to 65535, or a list of such numbers.")
        object.__setattr__(self, "port", tuple(ports))
        if self.host not in tuple(ADDRESSES):
            raise ValueError(
                f"host must be one of {', '.join(ADDRESSES)}: the answer may go to this machine alone (RFC 8252 "
                "section 8.3)."
            )
        if not (isinstance(cast("object", self.path), str) and _PATH.fullmatch(self.path)):
            raise ValueError("path must be that of the redirect URI, e.g. '/callback': no query, no fragment.")
        checked_seconds("timeout", self.timeout)
        for name in ("open", "paste"):
            function = getattr(self, name)
            if (function is None and name == "paste") or (callable(function) and not iscoroutinefunction(function)):
                continue
            hint = " Where there is no browser: open=lambda url: False." if function is None else ""
            raise TypeError(f"{name} must be a plain function; it is called in a thread, by arun() too.{hint}")

    @property
    def _own_fields(self) -> frozenset[str]:
        return _OWN_FIELDS

    def steps(self, clock: Clock = SYSTEM_CLOCK) -> Steps:
        """Listen, find the server, send the person there, wait for the code, and change it for a token."""
        port = yield Listen(self.host, cast("Sequence[int]", self.port))
        server = yield from self._server()
        self._client.request({}, server)  # if the code could not be changed for a token, nobody has to sign in for that
        host = f"[{self.host}]" if ":" in self.host else self.host
        redirect_uri = f"http://{host}:{port}{self.path}"
        verifier, state = secrets.token_urlsafe(_RANDOM), secrets.token_urlsafe(_RANDOM)
        answer = yield AwaitRedirect(
            url=self._authorization_url(server, redirect_uri, state, verifier),
            expected=Expected(self.path, state, server.name, server.authorization_response_iss_parameter_supported),
            open=self.open,
            paste=self.paste,
            timeout=self.timeout,
        )
        form = {
            "grant_type": "authorization_code",
            "code": self._code(answer),
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        asked_at = clock.time()
        try:
            response = yield self._client.request(form, server)
            return self._token(response, asked_at, server)
        except ReauthError as error:
            raise ended(error) from error.__cause__

    def _authorization_url(self, server: ServerMetadata, redirect_uri: str, state: str, verifier: str) -> str:
        """Where the browser goes (RFC 6749 section 4.1.1, RFC 7636 section 4.3)."""
        query: dict[str, str | Sequence[str]] = {
            **self.extra,
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": redirect_uri,
            "state": state,
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }
        if self.scope:
            query["scope"] = self.scope
        if self.resource:
            query["resource"] = self.resource
        url = server.endpoint("authorization_endpoint")
        return f"{url}{'&' if '?' in url else '?'}{urlencode(query, doseq=True)}"

    def _code(self, answer: Answer | None) -> str:
        """The code that the browser brought.

        Raises:
            SignInExpired: it brought nothing.
            SignInDenied: it brought something else.
        """
        if answer is None:
            raise SignInExpired(
                f"No answer came from the browser within {self.timeout:g} s, so nobody is signed in: the window was "
                "closed, or it never opened. To try again, begin a new sign-in. Where no browser can reach this "
                "machine, use DeviceSignIn."
            )
        if answer.has_wrong_issuer:
            raise SignInDenied(
                "The answer that the browser brought does not come from the server that was asked: its iss is missing "
                "or names another one (RFC 9207). It was not used, since it may be an attempt to get hold of a code."
            )
        if answer.error is not None:
            raise denied(answer)
        if not answer.code:
            raise SignInDenied("The answer that the browser brought has neither a code nor an error.")
        return answer.code


def challenge_of(verifier: str) -> str:
    """What the server learns of a verifier at first (RFC 7636 section 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65_535
