"""Gets tokens: decides, starts a refresh or joins the one under way, and waits.

The folder `_refresh` has the code that only a refresh needs. The core imports it in one place, in `__getattr__` below,
with the first refresh. So a program whose tokens never expire does not pay for this import.
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
