import httpx
from kiota_abstractions.authentication import AnonymousAuthenticationProvider


class HttpxRequestAdapter:
    def __init__(
        self,
        authentication_provider: AnonymousAuthenticationProvider,
        *,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        self.http_client = http_client or httpx.AsyncClient()
