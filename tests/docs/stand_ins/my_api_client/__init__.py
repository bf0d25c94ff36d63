"""Code as openapi-python-client generates it."""

from typing import Any

import httpx
from typing_extensions import Self


class AuthenticatedClient:
    def __init__(self, base_url: str, token: str, *, httpx_args: dict[str, Any] | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=base_url, headers=headers, **(httpx_args or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get_httpx_client(self) -> httpx.Client:
        return self._client
