"""Signs people in: with a browser on this machine, or with a code that they type on another machine.

Each `run()` returns a `Token` for `auth.sign_in(token)`. In async code, `await arun()` does the same, on asyncio and
trio.

Example:
    issuer = Issuer("https://id.example.com")
    auth = Reauth(RefreshTokenGrant(issuer, "my-cli"), storage=FileStorage("~/.config/my-cli/token.json"))
    auth.sign_in(BrowserSignIn(issuer, "my-cli", scope="openid offline_access").run())
"""

from __future__ import annotations

from httpx_reauth._errors import show_as_public
from httpx_reauth.signin.browser import BrowserSignIn
from httpx_reauth.signin.device import DevicePrompt, DeviceSignIn
from httpx_reauth.signin.errors import SignInDenied, SignInExpired
from httpx_reauth.signin.redirect import BrowserPrompt

__all__ = ["BrowserPrompt", "BrowserSignIn", "DevicePrompt", "DeviceSignIn", "SignInDenied", "SignInExpired"]

show_as_public(globals())
