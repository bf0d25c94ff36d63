from my_api_client import AuthenticatedClient


def sync(*, client: AuthenticatedClient) -> list[str] | None:
    response = client.get_httpx_client().get("/orders")
    return response.json()["orders"] if response.status_code == 200 else None
