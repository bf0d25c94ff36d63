import time
from typing import Any

from azure.core.credentials import AccessToken, TokenCredential


class DefaultAzureCredential(TokenCredential):
    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken(f"azure for {scopes[0]}", int(time.time()) + 3600)
