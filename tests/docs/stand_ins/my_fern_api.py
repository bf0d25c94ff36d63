"""Code as Fern generates it."""

import httpx


class _Orders:
    def __init__(self, client: httpx.Client, headers: dict[str, str], base_url: str) -> None:
        self._client, self._headers, self._base_url = client, headers, base_url

    def list(self) -> list[str]:
        response = self._client.get(f"{self._base_url}/orders", headers=self._headers)
        return response.raise_for_status().json()["orders"]


class MyApi:
    def __init__(self, *, base_url: str, token: str, httpx_client: httpx.Client | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self.orders = _Orders(httpx_client or httpx.Client(), headers, base_url)
