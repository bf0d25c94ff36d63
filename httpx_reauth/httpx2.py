"""The auth object for httpx2, as its own `Auth` class (extra `[httpx2]`); `httpx_reauth` has the one for httpx."""

from __future__ import annotations

import httpx2

from httpx_reauth._errors import RefreshError, StorageUnavailable, shown_as_its_base
from httpx_reauth._request.auth import ReauthBase
from httpx_reauth._request.packages import HttpPackage

__all__ = ["Reauth"]


@shown_as_its_base
class _RefreshError(RefreshError, httpx2.TransportError):
    """Out of a request, a `RefreshError` is httpx2's own error as well."""


@shown_as_its_base
class _StorageUnavailable(StorageUnavailable, httpx2.TransportError):
    """And so is a `StorageUnavailable`."""


class Reauth(ReauthBase[httpx2.Request, httpx2.Response], httpx2.Auth):
    """`httpx_reauth.Reauth` for `httpx2.Client` and `httpx2.AsyncClient`: the same arguments, the same guarantees.

    Out of a request, a `RefreshError` is an `httpx2.TransportError` as well.
    """

    __slots__ = ()

    _package = HttpPackage(httpx2.URL, httpx2.ByteStream, httpx2.TransportError, (_RefreshError, _StorageUnavailable))
