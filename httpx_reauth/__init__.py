"""An `httpx.Auth` that keeps an access token fresh: it renews the token and sends the request again.

    import httpx
    from httpx_reauth import Reauth, Token

    def refresh(token: Token) -> Token:
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        return Token.from_response(httpx.post("https://id.example.com/token", data=form))

    auth = Reauth(refresh, token=Token(refresh_token="..."), origins=["https://api.example.com"])
    with httpx.Client(base_url="https://api.example.com", auth=auth) as client:
        print(client.get("/me").json())

Requests in many threads and tasks may need a new token at the same time: they share one refresh. The same object works
with `httpx.AsyncClient`, on asyncio and trio. There, use `async with auth`, which waits for a refresh at its end. The
auth object for httpx2 is `httpx_reauth.httpx2.Reauth`.

    Reauth          the auth object; help(Reauth) has all settings
    Token           a token, or Token.from_response(response)
    RefreshError    there is no token now, try again later; also an httpx.TransportError
    SignInRequired  there is no token until somebody signs in: auth.sign_in(token)

    httpx_reauth.oauth    grants, in the place of a function: refresh token, client credentials and others
    httpx_reauth.signin   sign a person in, by browser or device code
    httpx_reauth.storage  save the token in a file, in Redis or in a keyring, for several processes
    ReauthPool            many users in one process
    httpx_reauth.testing  a server and a clock for your tests
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from httpx_reauth._clock import Clock
from httpx_reauth._errors import (
    InsecureOrigin,
    ReauthError,
    RefreshError,
    SignInRequired,
    StorageError,
    StorageUnavailable,
)
from httpx_reauth._state.actions import (
    Action,
    Reason,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    RevokeFailed,
    SaveFailed,
    SignedIn,
    SignedOut,
)
from httpx_reauth._state.state import AuthState, Status
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Token

if TYPE_CHECKING:
    from httpx_reauth._pool import ReauthPool
    from httpx_reauth._request.httpx import Reauth

__all__ = [
    "Action",
    "AuthState",
    "Clock",
    "InsecureOrigin",
    "Reauth",
    "ReauthError",
    "ReauthPool",
    "RefreshError",
    "RefreshFulfilled",
    "RefreshPending",
    "RefreshRejected",
    "RevokeFailed",
    "SaveFailed",
    "SignInRequired",
    "SignedIn",
    "SignedOut",
    "StorageError",
    "StorageUnavailable",
    "Token",
    "TokenStore",
    "__version__",
]

__version__ = "0.1.0"

# A library prints nothing by itself: docs/observing.md says how to see its warnings.
logging.getLogger("httpx_reauth").addHandler(logging.NullHandler())

# Tracebacks, `help` and `repr` show the module from which users import a name. So `typing.get_type_hints` looks up the
# annotations in this module.
_ANNOTATIONS = (Any, Mapping, Reason, Status)
for _public in [value for name, value in globals().items() if name in __all__ and isinstance(value, type)]:
    _public.__module__ = __name__

_MODULES = ("httpx2", "oauth", "otel", "signin", "storage", "testing")

# These names are imported at their first use. `Reauth` imports httpx, which a program with httpx2 may not have.
_AT_FIRST_USE = {"Reauth": "httpx_reauth._request.httpx", "ReauthPool": "httpx_reauth._pool"}


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))})


def __getattr__(name: str) -> object:
    """Import a name of `_AT_FIRST_USE`."""
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_AT_FIRST_USE[name]), name)
    return value
