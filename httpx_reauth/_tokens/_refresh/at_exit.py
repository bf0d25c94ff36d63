"""What could not be saved is tried once more when the interpreter ends.

1. A store whose storage could not be told of a token, or of a sign-out, is remembered here, weakly.
2. With the first one, a thread starts that waits for the end. It starts then, since none can start at the end (Python
   3.12 and later). It is a daemon, so that a storage that hangs holds up the end for `_WAIT` and no longer.
3. At the end (`atexit`) it writes what is still to be written.

There are ends at which Python calls nobody: `kill -9`, a signal that has no handler, `os._exit`, and with that the
children of `multiprocessing`. What is not in the storage then is lost.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakSet

from httpx_reauth._state.store import LOCK, TokenStore

if TYPE_CHECKING:
    from httpx_reauth._tokens._refresh.sync import StorageJob

    # Starts to write what the storage of a store does not hold, within so many seconds.
    Start: TypeAlias = Callable[[TokenStore, float], StorageJob | None]

_WAIT = 5.0  # seconds that the end of the interpreter waits for all of it


class _Watch:
    """The thread that waits for the end of this process."""

    def __init__(self, start: Start) -> None:
        self.pid = os.getpid()
        self.stores: WeakSet[TokenStore] = WeakSet()
        self._start = start
        self._is_ending, self._is_done = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name="httpx_reauth at exit", daemon=True).start()

    def _run(self) -> None:
        self._is_ending.wait()
        try:
            with LOCK:
                stores = list(self.stores)
            jobs = [self._start(store, _WAIT) for store in stores if store._state.pending_write]
            for job in jobs:
                if job is not None:
                    job.worker.finished.wait(_WAIT)
        finally:
            self._is_done.set()

    def end(self) -> None:
        """Let it write, and wait for that."""
        if self.pid == os.getpid():  # in a forked child it is not there: it stayed in the parent, which writes the same
            self._is_ending.set()
            self._is_done.wait(_WAIT)


_watch: _Watch | None = None


def remember(store: TokenStore, start: Start) -> None:
    """Try once more, at the end of the interpreter, to write what the storage of `store` does not hold by then."""
    global _watch  # noqa: PLW0603 - one thread for each process
    with LOCK:
        if _watch is None or _watch.pid != os.getpid():
            try:
                _watch = _Watch(start)
            except RuntimeError:  # no thread can start: the interpreter is ending already
                return
            atexit.register(_watch.end)
        _watch.stores.add(store)
