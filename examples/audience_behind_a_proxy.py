"""Client credentials for an API that needs an `audience`, from a network that is only connected through a proxy.

RFC 6749 has no field `audience`, but some servers need it. So put it into `extra`. The grant sends its requests with
the `httpx.Client` that you give it, with your proxy and your certificates. The client that calls the API needs the
proxy as well.

Run it: `python examples/audience_behind_a_proxy.py`. It starts a server and a forward proxy on loopback, and prints the
requests that went through the proxy.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from httpx_reauth import Reauth
from httpx_reauth.oauth import ClientCredentialsGrant
from httpx_reauth.testing import AuthorizationServer


def make_auth(
    token_url: str, client_id: str, client_secret: str, *, audience: str, origins: list[str], client: httpx.Client
) -> Reauth:
    """Return an auth object for the program itself. `client` sends the token requests."""
    grant = ClientCredentialsGrant(token_url, client_id, client_secret, extra={"audience": audience}, client=client)
    return Reauth(grant, origins=origins)


class ForwardProxy:
    """A replacement for the company's proxy (RFC 9110 §9.3.6). It tunnels CONNECT, and forwards plain http.

    Attributes:
        seen: the first line of each connection.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Run the proxy, and return its URL."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            asyncio.run_coroutine_threadsafe(self._stop(server), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _stop(self, server: asyncio.Server) -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)  # each task ends with the connection of its client

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.partition(b"\r\n")[0].decode()
        self.seen.append(line)
        method, target, _ = line.split()
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there, to_there = await asyncio.open_connection(url.hostname, url.port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            to_there.write(head)  # a server also accepts a whole URL (RFC 9112 §3.2.2)
        await asyncio.gather(pump(reader, to_there), pump(there, writer))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward all data until the end."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the other side has closed the connection
    finally:
        writer.close()


def main() -> None:
    """Send two requests through the proxy. The first needs a token, which comes through the proxy too."""
    secret = os.environ.get("EXAMPLE_CLIENT_SECRET", "kept in the environment")
    proxy = ForwardProxy()
    server = AuthorizationServer(clients={"reports": secret})
    with (
        server.serve() as base_url,
        proxy.serve() as proxy_url,
        httpx.Client(proxy=proxy_url) as token_client,
        httpx.Client(proxy=proxy_url, base_url=base_url) as api_client,
    ):
        audience = "https://api.example.com"
        origins = [base_url]
        auth = make_auth(
            f"{base_url}/token", "reports", secret, audience=audience, origins=origins, client=token_client
        )
        with auth:
            for _ in range(2):
                print(f"/reports: {api_client.get('/reports', auth=auth).status_code}")
        print(f"token requests: {server.token_requests}, for {server.requests_to('/token')[0].form['audience']}")
        for line in proxy.seen:
            print(f"through the proxy: {line.replace(base_url, '')}")


if __name__ == "__main__":
    main()
