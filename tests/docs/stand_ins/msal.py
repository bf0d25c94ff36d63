from typing import Any


class ConfidentialClientApplication:
    def __init__(self, client_id: str, client_credential: str, authority: str) -> None:
        self._count = 1

    def acquire_token_for_client(self, scopes: list[str]) -> dict[str, Any]:
        return {"access_token": f"msal-{self._count}", "expires_in": 3599, "token_type": "Bearer"}

    def remove_tokens_for_client(self) -> None:
        self._count += 1
