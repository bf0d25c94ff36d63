"""Get a token that is not this one: decide, join or start a refresh, wait.

`_tokens._refresh` is what only a refresh needs. This is its one door: it is imported when it is first asked for, so a
program whose tokens never end does not pay for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from httpx_reauth._tokens import _refresh

__all__ = ["_refresh"]


def __getattr__(name: str) -> object:
    """The module `_refresh`, imported with the first refresh (PEP 562)."""
    if name != "_refresh":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("httpx_reauth._tokens._refresh")
