from typing import Any, NamedTuple


class AccessToken(NamedTuple):
    token: str
    expires_on: int


class TokenCredential:
    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        raise NotImplementedError
