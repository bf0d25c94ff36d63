"""Signs a person in on another device (RFC 8628). The program shows a code, and the person types it on that device.

1. The first request returns the code, its lifetime, and the interval between two polls (5 s if the server does not
   say).
2. The program polls the token endpoint. The error `authorization_pending` means that the person has not finished. After
   `slow_down`, the interval is 5 s longer (section 3.5).
3. If there is no response, or one that means "later" (408, 425, 429, 5xx), the interval doubles (to 1 s at least), and
   `Retry-After` is respected. The person may have finished meanwhile, so the program polls until the code expires.
4. Every other error ends the sign-in. So does the end of the code's lifetime.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlsplit

from httpx_reauth._clock import SYSTEM_CLOCK, Clock
from httpx_reauth._errors import ReauthError, printable
from httpx_reauth._request.packages import Answer
from httpx_reauth._token import Token
from httpx_reauth.oauth.client_auth import TLSClientAuth
from httpx_reauth.oauth.frames import hides_settings
from httpx_reauth.signin.errors import SignInDenied, SignInExpired
from httpx_reauth.signin.settings import SignIn, ended, is_passing
from httpx_reauth.signin.steps import Pause, Show, Steps

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_OWN_FIELDS = frozenset({"client_id", "client_secret", "scope", "resource"})
_INTERVAL = 5.0  # seconds between two polls, if the server does not say (RFC 8628 section 3.2)
_SLOWER = 5.0  # seconds that `slow_down` adds to the interval (section 3.5)
_SOONEST = 1.0  # seconds; the shortest interval after a failure, even if the server has set an interval of 0
_SLOWEST = 60.0  # seconds; failures do not make the interval longer than this
_LIFETIME = 600.0  # seconds; the lifetime of a code, if the server does not say (it must)
_SHOWN = 2000  # characters of a URL or a code that are shown


@dataclass(frozen=True, slots=True)
class DevicePrompt:
    """The values that a person needs to sign in on another device. `str()` makes a text of them (RFC 8628 section 3.3).

    Attributes:
        verification_uri: the URL to open.
        user_code: the code to type there.
        verification_uri_complete: the same URL with the code in it, for a link or a QR code. None if the server sent
            none.
        expires_in: the lifetime of the code, in seconds.
    """

    verification_uri: str
    user_code: str
    verification_uri_complete: str | None
    expires_in: float

    def __str__(self) -> str:
        """Plain text for a terminal."""
        text = f"Open {self.verification_uri} on any device and enter the code {self.user_code}"
        if self.verification_uri_complete:
            text += f"\nor open {self.verification_uri_complete} and check that it shows this code"
        return text


@hides_settings
@dataclass(frozen=True, repr=False)
class DeviceSignIn(SignIn):
    """Signs a person in with a code that they type on another device. Returns their token for `auth.sign_in(token)`.

    It is for programs that a browser cannot reach: over SSH, in a container, on a television (RFC 8628).

    Args:
        issuer: the authorization server.
        client_id: the program's name at the server.
        client_secret: the program's password, if it has one.
        client_auth: the method of client authentication. None: a method from the server's metadata document, else
            Basic.
        client: a sync client of httpx or httpx2 with your proxy and TLS. The sign-in does not close it.
        allow_http: secrets may also be sent over plain http to another machine.
        scope: the scopes to request, e.g. `"openid offline_access"`. None: the server's default.
        resource: the APIs for which the token is, one URI or several (RFC 8707).
        extra: further fields of the device authorization request, e.g. `{"audience": "https://api.example.com"}`.

    Raises:
        TypeError: a setting is of a wrong type; the message says which.
        ValueError: a setting has a wrong value; the message says which.
        InsecureOrigin: the server is plain http on another machine, and `allow_http` is not set.

    Example:
        token = DeviceSignIn(Issuer("https://id.example.com"), "my-cli", scope="offline_access").run(show=print)
        auth.sign_in(token)
    """

    @property
    def _own_fields(self) -> frozenset[str]:
        return _OWN_FIELDS

    def steps(self, clock: Clock = SYSTEM_CLOCK) -> Steps:
        """Find the server's endpoints, get a code, show it, and poll until the person has typed it."""
        server = yield from self._server()
        # The form names the client even if Basic does so, too: some servers (Google, WSO2) read the name only there.
        named = {"client_id": self.client_id}
        form = {**self.extra, **named}
        if self.scope:
            form["scope"] = self.scope
        started = clock.monotonic()
        try:
            asked = self._client.request(form, server)
            mtls = isinstance(self.client_auth, TLSClientAuth)
            answer = yield replace(asked, url=server.endpoint("device_authorization_endpoint", mtls=mtls))
        except ReauthError as error:
            raise ended(error) from error.__cause__
        device = _Device.read(answer)
        yield Show(device.prompt)
        interval, end = device.interval, started + device.prompt.expires_in
        asked_to_wait = 0.0
        while True:
            pause = max(interval, asked_to_wait)
            yield Pause(min(pause, max(0.0, end - clock.monotonic())))
            if clock.monotonic() >= end:
                raise _expired(f"{device.prompt.expires_in:g} s")
            poll = {"grant_type": _GRANT, "device_code": device.code, **named}
            asked_at = clock.time()
            try:
                answer = yield replace(self._client.request(poll, server), spends="device_code")
                return self._token(answer, asked_at, server)
            except ReauthError as error:
                code, asked_to_wait = error.error, getattr(error, "retry_after", None) or 0.0
                if code == "slow_down":
                    interval += _SLOWER
                elif code == "authorization_pending":
                    pass
                elif code == "expired_token":
                    raise _expired("the time that the server gives") from None
                elif is_passing(error):
                    interval = max(interval, _SOONEST, min(2 * interval, _SLOWEST))
                else:
                    raise ended(error) from error.__cause__


@dataclass(frozen=True, slots=True, repr=False)
class _Device:
    """The response of the device authorization endpoint (RFC 8628 section 3.2)."""

    code: str
    interval: float
    prompt: DevicePrompt

    @classmethod
    def read(cls, answer: Answer) -> _Device:
        """Return the values in `answer`.

        Raises:
            ReauthError: `answer` is an error, or has no usable code or URL.
        """
        if answer.status_code != 200:
            try:
                Token.from_response(answer)
            except ReauthError as error:
                raise ended(error) from None
        fields = _fields(answer)
        code, user_code = fields.get("device_code"), fields.get("user_code")
        uri = fields.get("verification_uri") or fields.get("verification_url")  # Google sends `verification_url`
        complete = fields.get("verification_uri_complete") or fields.get("verification_url_complete")
        if not (_is_text(code) and _is_text(user_code) and _is_address(uri)):
            raise SignInDenied(
                "The answer of the device authorization endpoint has no usable device_code, user_code and "
                "verification_uri (RFC 8628 section 3.2), so nobody can sign in. Check the URL of that endpoint."
            )
        lifetime = _seconds(fields.get("expires_in"), _LIFETIME)
        return cls(
            code=cast("str", code),
            interval=_seconds(fields.get("interval"), _INTERVAL),
            prompt=DevicePrompt(
                verification_uri=_shown(uri),
                user_code=_shown(user_code),
                verification_uri_complete=_shown(complete) if _is_address(complete) else None,
                expires_in=lifetime,
            ),
        )


def _fields(answer: Answer) -> dict[str, Any]:
    try:
        fields = json.loads(answer.content)
    except (ValueError, RecursionError):
        fields = None
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_address(value: object) -> bool:
    """Is `value` a URL that a person can open in a browser?"""
    try:
        return isinstance(value, str) and urlsplit(value).scheme in ("https", "http") and bool(urlsplit(value).hostname)
    except ValueError:
        return False


def _shown(value: object) -> str:
    return printable(cast("str", value)[:_SHOWN])


def _seconds(value: object, default: float) -> float:
    """Return `value` as seconds; `default` if it is not a number, negative or too large. It may be a string."""
    try:
        seconds = float(cast("Any", value)) if not isinstance(value, bool) else default
    except (TypeError, ValueError, OverflowError):
        return default
    return seconds if 0 <= seconds < 1e9 else default


def _expired(after: str) -> SignInExpired:
    return SignInExpired(
        f"Nobody entered the code within {after}, so nobody is signed in. To try again, begin a new sign-in.",
        error="expired_token",
    )
