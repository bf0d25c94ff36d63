"""Tokens in a database with async SQLAlchemy: the refresh is a coroutine that locks the row, renews and commits.

A `storage=` has plain functions. If your program uses the database only with async code, you need no storage, because a
refresh may return a token that it *found*. If another worker has renewed the row, the found token is used and no token
request is sent. If the found token is not better than the last one, the refresh is called once more with the found
token.

The row is locked (`SELECT ... FOR UPDATE`) during the token request, so give that request a timeout. If the commit
fails after the server has rotated the refresh token, the new refresh token is lost. With a storage, it would be kept in
memory and saved later.

Run it: `python examples/async_sql_refresh.py`, or with a URL: `... postgresql+asyncpg://...`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

import httpx
from sqlalchemy import Float, String, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from httpx_reauth import Reauth, SignInRequired, Token
from httpx_reauth.testing import AuthorizationServer

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """The tables."""


class Row(Base):
    """A user's token."""

    __tablename__ = "oauth_tokens"

    user: Mapped[str] = mapped_column("user_id", String(200), primary_key=True)
    access_token: Mapped[str]
    refresh_token: Mapped[str | None]
    expires_in: Mapped[float | None] = mapped_column(Float(53))
    expires_at: Mapped[float | None] = mapped_column(Float(53))

    def read(self) -> Token:
        """Return the token in this row."""
        return Token(
            self.access_token,
            refresh_token=self.refresh_token,
            expires_in=self.expires_in,
            expires_at=self.expires_at,
        )

    def write(self, token: Token) -> None:
        """Put `token` into this row."""
        self.access_token, self.refresh_token = token.access_token, token.refresh_token
        self.expires_in, self.expires_at = token.expires_in, token.expires_at


def refresh_in(sessions: Sessions, user: str, token_url: str) -> Callable[[Token], Awaitable[Token]]:
    """Return the refresh for `user`, whose token is in the database."""

    async def refresh(last: Token) -> Token:
        async with sessions.begin() as session:  # commits at its end
            row = await session.get(Row, user, with_for_update=True)
            if row is None:
                raise SignInRequired(f"There is no token for {user} in the database. Sign in.")
            held = row.read()
            if held.access_token != last.access_token:
                return held  # another worker has renewed it, or this is the first call
            now = time.time()
            async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
                form = {"grant_type": "refresh_token", "refresh_token": held.refresh_token}
                answer = Token.from_response(await client.post(token_url, data=form))
            token = held.renewed(answer, now)  # keeps the fields that the answer does not have, and computes the end
            row.write(token)
            return token

    return refresh


def make_engine(url: str) -> AsyncEngine:
    """Return an engine. SQLite has no row locks, so each transaction there locks the whole database when it begins."""
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


async def main(url: str) -> None:
    """Four workers, each with its own auth object, find the same expired token. One of them renews it."""
    engine = make_engine(url)
    sessions: Sessions = async_sessionmaker(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    with AuthorizationServer() as server, server.serve() as base_url:
        async with sessions.begin() as session:
            row = Row(user="alice")
            row.write(server.issue(lifetime=0))
            await session.merge(row)

        async def worker(number: int) -> None:
            auth = Reauth(refresh_in(sessions, "alice", f"{base_url}/token"), origins=[base_url])
            async with auth, httpx.AsyncClient(base_url=base_url, auth=auth, trust_env=False) as client:
                print(f"worker {number}: {(await client.get('/me')).status_code}")

        await asyncio.gather(*(worker(number) for number in range(4)))
        print(f"token requests: {server.token_requests}")
    await engine.dispose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite+aiosqlite:///{folder}/tokens.db"))
