from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from google.auth.transport.requests import Request


class Credentials:
    token: str | None = None
    expiry: datetime | None = None

    def refresh(self, request: Request) -> None:
        self.token = "google"
        self.expiry = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(hours=1)


def default(scopes: Sequence[str] | None = None) -> tuple[Credentials, str | None]:
    return Credentials(), "my-project"
