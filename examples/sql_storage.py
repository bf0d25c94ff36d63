"""Your own storage: tokens in a table of a database, one row for each user, with SQLAlchemy.

Use `Reauth(grant, storage=SqlStorage(engine, user="alice"))` in every process on every host that uses the database.

The lock is a lease in the row itself. A compare-and-set takes it and gives it back, so no transaction is open during
the token request. The time comes from the database, because the clocks of hosts differ. A worker that has lost its
lease does not save. The storage works with PostgreSQL, MariaDB and SQLite. Its tests inherit
`httpx_reauth.testing.StorageContract`.

Run it: `python examples/sql_storage.py`, or with the URL of your database: `python examples/sql_storage.py
postgresql://...`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from uuid import uuid4

import httpx
from sqlalchemy import Float, String, Text, and_, create_engine, extract, func, insert, or_, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from httpx_reauth import Reauth, StorageError, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.testing import AuthorizationServer


class Base(DeclarativeBase):
    """The tables."""


class Row(Base):
    """A user's token, the holder of the lease, and the end of the lease."""

    __tablename__ = "oauth_tokens"

    user: Mapped[str] = mapped_column("user_id", String(200), primary_key=True)
    token: Mapped[str | None] = mapped_column(Text)
    owner: Mapped[str | None] = mapped_column(String(32))
    until: Mapped[float] = mapped_column("owned_until", Float(53), default=0.0)


NOW = extract("epoch", func.current_timestamp())  # in seconds, by the database's clock


class SqlStorage:
    """A storage that keeps one user's token in a row.

    Args:
        engine: the engine of the database.
        user: the user whose token it is.
    """

    def __init__(self, engine: Engine, user: str) -> None:
        self.engine = engine
        self.user = user
        self._owner: str | None = None  # the name of this holder, while it holds the lock

    def load(self) -> Token | None:
        """Return the token in the row, or None."""
        with self._work("read") as connection:
            text = connection.scalar(select(Row.token).where(Row.user == self.user))
        return None if text is None else Token(**json.loads(text))

    def save(self, token: Token) -> None:
        """Put `token` into the row."""
        self._set(json.dumps(asdict(token)))

    def clear(self) -> None:
        """Empty the row."""
        self._set(None)

    def try_lock(self, lease: float) -> AbstractContextManager[None] | None:
        """Return the lease on the row, or None if another holder has it. If a holder dies, its lease expires."""
        owner = uuid4().hex
        return self._held(owner) if self._take(owner, lease) else None

    @contextmanager
    def _held(self, owner: str) -> Iterator[None]:
        self._owner = owner
        try:
            yield
        finally:
            self._owner = None
            with self._work("unlocked") as connection:
                mine = and_(Row.user == self.user, Row.owner == owner)
                connection.execute(update(Row).where(mine).values(owner=None, until=0.0))

    def _take(self, owner: str, seconds: float) -> bool:
        lease = {"owner": owner, "until": NOW + seconds}
        is_free = or_(Row.owner.is_(None), Row.until < NOW)
        with self._work("locked") as connection:
            if connection.execute(update(Row).where(Row.user == self.user, is_free).values(**lease)).rowcount:
                return True
            if connection.scalar(select(Row.user).where(Row.user == self.user)) is not None:
                return False
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(Row).values(user=self.user, **lease))
        except IntegrityError:  # another worker has just made the row
            return False
        except SQLAlchemyError as error:
            raise self._failed("locked", error) from None
        return True

    def _set(self, text: str | None) -> None:
        with self._work("written") as connection:
            mine = and_(Row.user == self.user, Row.owner == self._owner)
            if not connection.execute(update(Row).where(mine).values(token=text)).rowcount:
                raise StorageError(f"{self!r} is left as it is: this process has lost its lock, somebody else has it.")

    @contextmanager
    def _work(self, what: str) -> Iterator[object]:
        try:
            with self.engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._failed(what, error) from None  # SQLAlchemy's own error may show the token

    def _failed(self, what: str, error: Exception) -> StorageError:
        return StorageError(f"{self!r} cannot be {what} ({type(error).__name__}). Is the database there?")

    def __repr__(self) -> str:
        return f"SqlStorage(user={self.user!r})"


def main(url: str) -> None:
    """Four workers find the same expired token in the database. One of them renews it."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with AuthorizationServer() as server, server.serve() as base_url:
        grant = RefreshTokenGrant(f"{base_url}/token", "app")
        Reauth(grant, storage=SqlStorage(engine, "alice"), origins=[base_url]).sign_in(server.issue(lifetime=0))

        def worker(number: int) -> None:
            auth = Reauth(grant, storage=SqlStorage(engine, "alice"), origins=[base_url])
            with auth, httpx.Client(base_url=base_url, auth=auth, trust_env=False) as client:
                statuses[number] = client.get("/me").status_code

        statuses: dict[int, int] = {}
        workers = [threading.Thread(target=worker, args=(number,)) for number in range(4)]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
        for number, status in sorted(statuses.items()):
            print(f"worker {number}: {status}")
        print(f"token requests: {server.token_requests}")
    engine.dispose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/tokens.db")
