"""Code as Kiota generates it."""

from kiota_http.httpx_request_adapter import HttpxRequestAdapter


class _Orders:
    def __init__(self, adapter: HttpxRequestAdapter) -> None:
        self._adapter = adapter

    async def get(self) -> list[str]:
        response = await self._adapter.http_client.get("/orders")
        return response.raise_for_status().json()["orders"]


class MyKiotaClient:
    def __init__(self, adapter: HttpxRequestAdapter) -> None:
        self.orders = _Orders(adapter)
