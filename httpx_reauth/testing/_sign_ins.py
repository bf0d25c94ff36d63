"""The codes of sign-ins: codes in a browser's redirect (RFC 6749 section 4.1) and codes of a device (RFC 8628)."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from httpx_reauth.testing._grants import Family, OAuthError

_CODE_LIFETIME = 60.0  # seconds


@dataclass(slots=True)
class Code:
    """An authorization code, which the browser sends to the client."""

    client_id: str | None
    redirect_uri: str
    challenge: str
    scope: str | None
    ends: float
    family: Family | None = None  # set when the code has been used


@dataclass(slots=True)
class Device:
    """A device whose user answers on a different device."""

    client_id: str | None
    user_code: str
    scope: str | None
    ends: float
    interval: float
    answer: Literal["pending", "approved", "denied", "used"] = "pending"
    next_look: float = 0.0


class SignIns:
    """The issued codes. This class is not thread-safe; the server holds a lock."""

    def __init__(self) -> None:
        self._codes: dict[str, Code] = {}
        self._devices: dict[str, Device] = {}

    def new_code(self, client_id: str | None, params: Mapping[str, str], now: float) -> str:
        """Return a code for a browser whose user has agreed to `params`."""
        code = f"code-{secrets.token_urlsafe(12)}"
        self._codes[code] = Code(
            client_id, params["redirect_uri"], params["code_challenge"], params.get("scope"), now + _CODE_LIFETIME
        )
        return code

    def use_code(self, form: Mapping[str, str], client_id: str | None, now: float) -> Code:
        """Return the code in `form`. The caller sets the family of the code.

        Raises:
            OAuthError: `invalid_grant`: the code is unknown, expired or used, or a different client has sent it (RFC
                6749 section 4.1.3, RFC 7636 section 4.6).
        """
        code = self._codes.get(form.get("code", ""))
        if code is None or now >= code.ends:
            raise OAuthError("invalid_grant", "The code is unknown, or has expired.")
        if code.family is not None:
            code.family.revoked = True
            raise OAuthError("invalid_grant", "The code had been used before; all tokens of it are revoked.")
        if code.client_id != client_id or code.redirect_uri != form.get("redirect_uri"):
            raise OAuthError("invalid_grant", "The code was made for another client or another redirect_uri.")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != code.challenge:
            raise OAuthError("invalid_grant", "The code_verifier is not that of the code (RFC 7636 section 4.6).")
        return code

    def new_device(
        self, client_id: str | None, scope: str | None, *, lifetime: float, interval: float, now: float
    ) -> tuple[str, str]:
        """Return a device code, and the code that its user types."""
        device_code = f"device-{secrets.token_urlsafe(12)}"
        letters = "".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(8))
        user_code = f"{letters[:4]}-{letters[4:]}"
        self._devices[device_code] = Device(client_id, user_code, scope, now + lifetime, interval)
        return device_code, user_code

    def use_device(self, device_code: str, client_id: str | None, now: float) -> Device:
        """Return the device of `device_code`, whose user has agreed.

        Raises:
            OAuthError: an error of RFC 8628 section 3.5; `slow_down` makes the interval 5 s longer.
        """
        device = self._devices.get(device_code)
        if device is None or device.client_id != client_id or device.answer == "used":
            raise OAuthError("invalid_grant", "The device code is unknown, used, or was made for another client.")
        if now >= device.ends:
            raise OAuthError("expired_token", "The device code has expired.")
        if device.answer == "denied":
            raise OAuthError("access_denied", "The user said no.")
        if now < device.next_look:
            device.interval += 5
            device.next_look = now + device.interval
            raise OAuthError("slow_down", f"Wait {device.interval:g} s between two looks.")
        device.next_look = now + device.interval
        if device.answer == "pending":
            raise OAuthError("authorization_pending", "The user has not answered yet.")
        device.answer = "used"
        return device

    def answer_devices(self, user_code: str | None, answer: Literal["approved", "denied"]) -> int:
        """Answer for the user of the device with `user_code` (None: of every waiting device). Return the number."""
        asked = [
            device
            for device in self._devices.values()
            if device.answer == "pending" and user_code in (None, device.user_code)
        ]
        for device in asked:
            device.answer = answer
        return len(asked)

    def expire_devices(self, now: float) -> None:
        """Expire every device code issued so far."""
        for device in self._devices.values():
            device.ends = min(device.ends, now)
