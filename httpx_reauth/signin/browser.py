"""Signs a person in with the browser on this machine. This is the authorization code grant for native apps.

It is RFC 6749 section 4.1 with PKCE (RFC 7636), a loopback address (RFC 8252 section 7.3) and `iss` (RFC 9207).
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

_RANDOM = 32  # bytes of a verifier and of a state; they make a verifier of 43 characters (RFC 7636 section 4.1)
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

    It is the authorization code grant with PKCE (always S256), `state`, and `iss` if the server sends it. The program
    listens at a loopback address, and then opens the browser. After the sign-in, the server redirects the browser to
    the loopback address. The program reads the code from this request, and closes the port. If there is no browser
    (over SSH, in a container), the program shows the URL, and the person can paste the URL of the last page.

    Args:
        issuer: the authorization server.
        client_id: the program's name at the server.
        client_secret: the program's password, if it has one. A program that people install cannot keep a password
            secret (RFC 8252 section 8.5).
        client_auth: the method of client authentication. None: a method from the server's metadata document, else
            Basic.
        client: a sync client of httpx or httpx2 with your proxy and TLS. The sign-in does not close it.
        allow_http: secrets may also be sent over plain http to another machine.
        scope: the scopes to request, e.g. `"openid offline_access"`. None: the server's default.
        resource: the APIs for which the token is, one URI or several (RFC 8707).
        extra: further parameters of the authorization request, e.g. `{"prompt": "consent", "login_hint": "me"}`.
        port: the port at which the program listens. 0: any free port, which servers must accept for native apps (RFC
            8252 section 7.3). A list, e.g. `[8400, 8401]`: the first free one. Use a list if the server accepts only
            registered ports.
        host: the loopback address in the redirect URI: `127.0.0.1`, `::1` or `localhost`, as it is registered. With
            `localhost`, the program listens at both addresses.
        path: the path of the redirect URI.
        open: a function that opens the browser. It gets the URL, and returns False if there is no browser. It is called
            in a thread.
        paste: a function that returns the URL of the last page, which a person has pasted. It is called in a thread, if
            there is no browser. If the function takes an argument, it gets the URL to open. `input` is such a function;
            it waits for a line even after the answer has arrived at the loopback address. None: the sign-in reads the
            program's terminal, if there is one (not on Windows).
        timeout: seconds for the person, from the opening of the browser to the answer.

    Raises:
        TypeError: a setting is of a wrong type; the message says which.
        ValueError: a setting has a wrong value; the message says which.
        InsecureOrigin: the server is plain http on another machine, and `allow_http` is not set.

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
        """Listen, find the server's endpoints, open the browser, wait for the code, and exchange it for a token."""
        port = yield Listen(self.host, cast("Sequence[int]", self.port))
        server = yield from self._server()
        self._client.request({}, server)  # a check of the settings, so that an error comes before the person signs in
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
        """Return the URL that the browser opens (RFC 6749 section 4.1.1, RFC 7636 section 4.3)."""
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
        """Return the code in `answer`.

        Raises:
            SignInExpired: `answer` is None: no answer arrived in time.
            SignInDenied: `answer` has an error, a wrong issuer, or no code.
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
    """Return the hash of `verifier` that the authorization request contains (RFC 7636 section 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65_535
