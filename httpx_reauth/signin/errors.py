"""How a sign-in can end without a token."""

from __future__ import annotations

from httpx_reauth._errors import ReauthError


class SignInDenied(ReauthError):
    """The sign-in ended without a token: the person refused, the server did, or its answer cannot be trusted.

    Its `error` is the server's code, e.g. `access_denied` where the person said no (RFC 6749 section 4.1.2.1, RFC 8628
    section 3.5), or None where the answer itself was at fault, e.g. a wrong `iss`. Begin again with another `run()`.
    """


class SignInExpired(ReauthError):
    """Nobody signed in before the time was over. Begin again with another `run()`."""
