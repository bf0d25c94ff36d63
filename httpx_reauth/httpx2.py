"""The auth object for httpx2 (extra `[httpx2]`); `httpx_reauth` has the auth object for httpx."""

from __future__ import annotations

try:
    import httpx2
except ImportError as error:
    raise ImportError('httpx_reauth.httpx2 needs httpx2: pip install "httpx-reauth[httpx2]"', name="httpx2") from error

from httpx_reauth._errors import RefreshError, StorageUnavailable, shown_as_its_base
from httpx_reauth._request.auth import ReauthBase
from httpx_reauth._request.packages import HttpPackage

__all__ = ["Reauth"]


@shown_as_its_base
class _RefreshError(RefreshError, httpx2.TransportError):
    """The `RefreshError` that a request raises: it is httpx2's `TransportError` as well."""


@shown_as_its_base
class _StorageUnavailable(StorageUnavailable, httpx2.TransportError):
    """The `StorageUnavailable` that a request raises: it is httpx2's `TransportError` as well."""


class Reauth(ReauthBase[httpx2.Request, httpx2.Response], httpx2.Auth):
    """`httpx_reauth.Reauth` for `httpx2.Client` and `httpx2.AsyncClient`: the same arguments, the same guarantees.

    A `RefreshError` that a request raises is an `httpx2.TransportError` as well.
    """

    __slots__ = ()

    _package = HttpPackage(httpx2.URL, httpx2.ByteStream, httpx2.TransportError, (_RefreshError, _StorageUnavailable))
