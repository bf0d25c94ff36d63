"""A change that could not be written to the storage is tried once more when the interpreter ends.

1. This module remembers each store with such a change (a token or a sign-out), by a weak reference.
2. With the first such store, a thread starts that waits for the end of the interpreter. The thread starts early, since
   no thread can start at the end (Python 3.12 and later). The thread is a daemon: so a storage that hangs delays the
   end by at most `_WAIT` seconds.
3. At the end (`atexit`), this thread writes the changes that are not written yet.

Python does not run `atexit` functions after `kill -9`, after a signal without a handler, and after `os._exit`, which
also ends the children of `multiprocessing`. In these cases, a change that is not in the storage is lost.
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

    # Starts to write the pending change of a store; the second argument is the time limit in seconds.
    Start: TypeAlias = Callable[[TokenStore, float], StorageJob | None]

_WAIT = 5.0  # seconds: the most that the end of the interpreter waits for all stores together


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
        """Let the thread write, and wait until it is done."""
        if self.pid == os.getpid():  # else this is a forked child; the thread runs in the parent, which writes the same
            self._is_ending.set()
            self._is_done.wait(_WAIT)


_watch: _Watch | None = None


def remember(store: TokenStore, start: Start) -> None:
    """Remember `store`: at the end of the interpreter, its pending change is written, if there still is one."""
    global _watch  # noqa: PLW0603 - one thread for each process
    with LOCK:
        if _watch is None or _watch.pid != os.getpid():
            try:
                _watch = _Watch(start)
            except RuntimeError:  # no thread can start: the interpreter is ending already
                return
            atexit.register(_watch.end)
        _watch.stores.add(store)
