"""An `httpx.Auth` that renews its token in one shared flight and sends the request again.

auth = Reauth(refresh, token=Token(refresh_token="..."))
async with auth, httpx.AsyncClient(auth=auth) as client:
    me = await client.get("https://api.example.com/me")
"""

from __future__ import annotations

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
    "SaveFailed",
    "SignInRequired",
    "SignedIn",
    "SignedOut",
    "StorageError",
    "StorageUnavailable",
    "Token",
    "TokenStore",
]

# Tracebacks, `help` and `repr` say where a name is imported from. So `typing.get_type_hints` looks here for what the
# fields are annotated with.
_ANNOTATIONS = (Any, Mapping, Reason, Status)
for _public in [value for name, value in globals().items() if name in __all__ and isinstance(value, type)]:
    _public.__module__ = __name__

# What is imported at its first use: `Reauth` brings httpx, which those who have httpx2 alone do without.
_AT_FIRST_USE = {"Reauth": "httpx_reauth._request.httpx", "ReauthPool": "httpx_reauth._pool"}


def __dir__() -> list[str]:
    """What is public, whether it has been imported or not."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import what is imported at its first use."""
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_AT_FIRST_USE[name]), name)
    return value
