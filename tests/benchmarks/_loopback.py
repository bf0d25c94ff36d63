"""A server on loopback in another process, so that its CPU time does not count as the client's.

It answers each request immediately, with the same few bytes.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TOP = Path(__file__).parents[2]
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def server() -> Iterator[str]:
    """Run the server until the `with` block ends, and yield its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=_TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


class _Connection(asyncio.Protocol):
    """One connection. The requests have no body, so a blank line ends each of them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._head = b""

    def data_received(self, data: bytes) -> None:
        *heads, self._head = (self._head + data).split(b"\r\n\r\n")
        for _ in heads:
            self._transport.write(_ANSWER)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(_Connection, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    # When the parent process has ended, the standard input ends.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
