"""A kit to test code that renews its tokens: an authorization server in memory, and a clock that your test sets.

`AuthorizationServer` is an OAuth 2.0 authorization server together with the API that it protects. It rotates refresh
tokens and detects a refresh token that is used twice. A test can expire or revoke tokens, delay responses and choose
faults. The server counts all requests. Your code can reach it in three ways.

With a transport, without a network. It works with `httpx.Client` and `httpx.AsyncClient`, on asyncio and trio. For
httpx2, pass that module instead.

```python
import httpx
from httpx_reauth import Reauth, Token
from httpx_reauth.testing import AuthorizationServer, ManualClock

clock = ManualClock()
server = AuthorizationServer(lifetime=3600, clock=clock)
transport = server.transport(httpx)

def refresh(token: Token) -> Token:
    with httpx.Client(transport=transport) as client:
        form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        return Token.from_response(client.post("https://api.test/token", data=form))

auth = Reauth(refresh, token=server.issue(), clock=clock)
with httpx.Client(transport=transport, base_url="https://api.test", auth=auth) as client:
    assert client.get("/me").status_code == 200
    clock.advance(3600)                            # the token has expired
    assert client.get("/me").status_code == 200
assert (server.token_requests, server.api_unauthorized) == (1, 0)
```

With respx, if your code makes its own clients:

```python
import httpx
import respx
from httpx_reauth.testing import AuthorizationServer, faults

server = AuthorizationServer()
token = server.issue()
with respx.mock() as router:
    server.mock(router, base_url="https://api.test")
    server.api.fail(faults.too_many_requests(retry_after=3))     # once; later requests succeed
    headers = {"Authorization": f"Bearer {token.access_token}"}
    assert httpx.get("https://api.test/me", headers=headers).headers["Retry-After"] == "3"
    assert httpx.get("https://api.test/me", headers=headers).json()["path"] == "/me"
```

On a real socket. Only a real socket shows a lost body, a pool without a free connection or a dropped connection:

```python
import anyio
import httpx
from httpx_reauth.testing import AuthorizationServer

async def main() -> None:
    server = AuthorizationServer(clients={"app": "secret"})
    with server.serve() as base_url:
        async with httpx.AsyncClient(base_url=base_url) as client:
            form = {"grant_type": "client_credentials"}
            answer = await client.post("/token", data=form, auth=("app", "secret"))
            headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            with server.api.hold() as gate:                      # responses wait until the gate is released
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        tasks.start_soon(lambda: client.get("/me", headers=headers))
                    await server.await_until(lambda: gate.held == 3)
                    gate.release()
    assert server.tokens_issued == 1
    assert server.authorizations("/me") == [headers["Authorization"]] * 3

anyio.run(main)
```

For pytest, name the plugin in your top `conftest.py`: `pytest_plugins = ["httpx_reauth.testing.pytest"]`. Then tests
have the fixtures `authorization_server` and `manual_clock`. That server uses that clock.

`Settings` lists the settings, `Ledger` the counters, and `faults` the faults. The token endpoint and the API are each
an `Endpoint`, which has the methods for faults and delays. A request takes effect when it arrives. Latency and gates
delay only the response. So if a client gives up meanwhile, the rotation has happened and the response is lost.
"""

from httpx_reauth._errors import show_as_public
from httpx_reauth.testing import faults
from httpx_reauth.testing._clients import ClientAuth
from httpx_reauth.testing._endpoint import Endpoint, Gate
from httpx_reauth.testing._ledger import Ledger
from httpx_reauth.testing._manual_clock import ManualClock
from httpx_reauth.testing._messages import Answer, Received
from httpx_reauth.testing._server import AuthorizationServer
from httpx_reauth.testing._settings import Settings
from httpx_reauth.testing._signal import Signal
from httpx_reauth.testing.contract import StorageContract
from httpx_reauth.testing.faults import Fault

__all__ = [
    "Answer",
    "AuthorizationServer",
    "ClientAuth",
    "Endpoint",
    "Fault",
    "Gate",
    "Ledger",
    "ManualClock",
    "Received",
    "Settings",
    "Signal",
    "StorageContract",
    "faults",
]

show_as_public(globals())
