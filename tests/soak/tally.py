"""Counts the outcomes and latencies of a fleet, and measures what the process holds."""

from __future__ import annotations

import gc
import os
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import httpx2

from httpx_reauth import ReauthError

# The outcomes that the faults can cause: a status, a failed refresh, a dropped connection. A 401 means that the token
# was revoked between its issue and its replay.
EXPECTED = frozenset({
    "200", "401", "503", "cancelled", "RefreshError",
    "RemoteProtocolError", "ReadError", "WriteError", "CloseError",
})  # fmt: skip


class Tally:
    """Counts outcomes, and keeps latencies. Each worker has its own, so it needs no lock."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.latencies = array("f")  # seconds; four bytes each

    @contextmanager
    def request(self) -> Generator[Callable[[object], None], None, None]:
        """Count one request. The test gives its status, or a word, to the function that this yields."""
        said: list[object] = []
        begun = time.perf_counter()
        try:
            yield said.append
        except ReauthError as error:
            self.outcomes[type(error).__name__] += 1  # some of these exceptions are also exceptions of the HTTP client
        except (httpx.HTTPError, httpx2.HTTPError) as error:
            self.outcomes[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 - it is reported, and the soak ends with 1
            self.outcomes[f"{type(error).__name__}: {error}"] += 1
        else:
            self.outcomes[str(said[0]) if said else "cancelled"] += 1
            if said:
                self.latencies.append(time.perf_counter() - begun)

    def add(self, other: Tally) -> None:
        self.outcomes += other.outcomes
        self.latencies.extend(other.latencies)

    def percentile(self, share: float) -> float:
        """Return the latency, in seconds, within which this share of the answered requests stayed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def memory_now() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def files_now() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        if Path(folder).is_dir():
            return len(list(Path(folder).iterdir()))
    return 0


@dataclass(frozen=True)
class Held:
    """The process's memory in bytes (0 if there is no /proc), open files, and threads."""

    memory: int = field(default_factory=memory_now)
    files: int = field(default_factory=files_now)
    threads: int = field(default_factory=threading.active_count)

    @classmethod
    def after_all(cls, before: Held, patience: float = 15.0) -> Held:
        """Return what is held after everything has been closed. Threads that are about to end get the time for it."""
        end = time.monotonic() + patience
        while True:
            gc.collect()
            now = cls()
            if (now.files <= before.files and now.threads <= before.threads) or time.monotonic() > end:
                return now
            time.sleep(0.05)
