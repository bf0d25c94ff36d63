"""The errors with which a sign-in can end."""

from __future__ import annotations

from httpx_reauth._errors import ReauthError


class SignInDenied(ReauthError):
    """The sign-in ended without a token: the person or the server refused it, or the response cannot be trusted.

    `error` is the server's code, e.g. `access_denied` if the person refused (RFC 6749 section 4.1.2.1, RFC 8628 section
    3.5). It is None if the response itself is faulty, e.g. has a wrong `iss`. Call `run()` again to begin a new
    sign-in.
    """


class SignInExpired(ReauthError):
    """Nobody signed in before the time was over. Call `run()` again to begin a new sign-in."""
