"""A FastAPI service with many users. Each user has their own token for another API. One client, one `ReauthPool`.

`pool[user]` is the only auth object of that user in this process, for any number of requests at the same time. It reads
the token from the user's storage, so the pool may be much smaller than the number of users. The lifespan opens the
client. At its end, it waits for running refreshes. Two exception handlers turn a failed renewal into a response to
*our* callers.

Run it: `python examples/fastapi_service.py`, after `pip install fastapi`. This calls the service in the same process.
To serve it: `uvicorn --factory my_module:make_app`, with your grant and one storage for each user, e.g. `RedisStorage`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse

from httpx_reauth import Reauth, ReauthPool, RefreshError, SignInRequired, Token
from httpx_reauth.oauth import Grant, RefreshTokenGrant
from httpx_reauth.storage import MemoryStorage, Storage
from httpx_reauth.testing import AuthorizationServer

Pool = ReauthPool[str, Reauth]


def current_user(x_user: Annotated[str, Header()]) -> str:
    """Return the user of the request: here from a header, in a real service from the session."""
    return x_user


User = Annotated[str, Depends(current_user)]


def make_app(api_url: str, grant: Grant, storage_of: Callable[[str], Storage]) -> FastAPI:
    """Return the service. `storage_of(user)` is the storage that keeps the user's token after the process ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool: Pool = ReauthPool(lambda user: Reauth(grant, storage=storage_of(user), origins=[api_url]), maxsize=10_000)
        async with pool, httpx.AsyncClient(base_url=api_url) as client:
            app.state.pool, app.state.client = pool, client
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/summary")
    async def summary(user: User, request: Request) -> dict[str, object]:
        """Return the other API's data about this user."""
        response = await request.app.state.client.get("/me", auth=request.app.state.pool[user])
        return {"user": user, "asked": response.raise_for_status().json()["path"]}

    @app.put("/connection", status_code=204)
    async def connect(user: User, request: Request, refresh_token: Annotated[str, Header()]) -> None:
        """Store the token of a user who has signed in at the other API. Your framework does the part in the browser."""
        await request.app.state.pool[user].asign_in(Token(refresh_token=refresh_token))

    @app.delete("/connection", status_code=204)
    async def disconnect(user: User, request: Request) -> None:
        """Remove the user's token, in the storage as well."""
        await request.app.state.pool.adisconnect(user)

    @app.exception_handler(SignInRequired)
    async def not_connected(*_: object) -> JSONResponse:
        return JSONResponse({"detail": "Connect your account first."}, 403)

    @app.exception_handler(RefreshError)
    async def come_again(_: Request, error: RefreshError) -> JSONResponse:
        headers = {"Retry-After": f"{error.retry_after:.0f}"} if error.retry_after else {}
        return JSONResponse({"detail": "The other service is not available."}, 503, headers)

    return app


async def main() -> None:
    """Three users send ten requests each at the same time. One has never signed in, and one signs out."""
    storages: dict[str, MemoryStorage] = {}
    with AuthorizationServer() as api, api.serve() as api_url:
        grant = RefreshTokenGrant(f"{api_url}/token", "my-service")
        app = make_app(api_url, grant, lambda user: storages.setdefault(user, MemoryStorage()))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service.test") as browser,
        ):
            for user in ("alice", "bob"):
                secret = api.issue(access_token=False).refresh_token or ""
                await browser.put("/connection", headers={"X-User": user, "Refresh-Token": secret})

            async def ten(user: str) -> None:
                each = [browser.get("/summary", headers={"X-User": user}) for _ in range(10)]
                statuses = [answer.status_code for answer in await asyncio.gather(*each)]
                print(f"{user}: {', '.join(f'{statuses.count(one)} x {one}' for one in sorted(set(statuses)))}")

            for user in ("alice", "bob", "carol"):
                await ten(user)
            await browser.delete("/connection", headers={"X-User": "bob"})
            await ten("bob")
        print(f"token requests: {api.token_requests}")


if __name__ == "__main__":
    asyncio.run(main())
