"""One endpoint of a server, e.g. the token endpoint or the API: its delays, its faults and its held responses."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from httpx_reauth._state.arguments import check
from httpx_reauth.testing._messages import Answer, Pause
from httpx_reauth.testing._signal import Signal
from httpx_reauth.testing.faults import Fault

if TYPE_CHECKING:
    from typing_extensions import Self


class Gate:
    """Hold responses back until the test releases them. Requests still take effect when they arrive.

    Attributes:
        held: how many responses it has held back so far.
    """

    def __init__(self) -> None:
        self.held = 0
        self._signal = Signal()

    def release(self) -> None:
        """Send the held responses, and hold no further ones."""
        self._signal.set()

    @property
    def is_released(self) -> bool:
        """Return whether the gate has been released."""
        return self._signal.is_set()

    def hold_one(self) -> Signal:
        """Count one more held response, which waits for the returned signal. The server calls this."""
        self.held += 1
        return self._signal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Endpoint:
    """The faults and delays of one endpoint, e.g. of `server.token_endpoint` or `server.api`.

    Attributes:
        latency: seconds between the arrival of a request (when it takes effect) and its response.
    """

    def __init__(self, closing: Signal) -> None:
        self.latency = 0.0
        self._closing = closing
        self._lock = threading.Lock()
        self._next: deque[Fault] = deque()
        self._always: Fault | None = None
        self._gate: Gate | None = None

    def fail(self, *faults: Fault) -> None:
        """Add `faults` for the next requests, one for each request, after the faults that were added before."""
        for fault in faults:
            _check(fault)
        with self._lock:
            self._next.extend(faults)

    def fail_always(self, fault: Fault) -> None:
        """Answer every request with `fault`, until `heal()`. The faults of `fail` come first."""
        _check(fault)
        with self._lock:
            self._always = fault

    def heal(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._next.clear()
            self._always = None

    def hold(self) -> Gate:
        """Hold all responses from now on, until `release()` of the returned gate or the end of its `with` block."""
        with self._lock:
            self._gate = Gate()
            return self._gate

    def next_fault(self) -> Fault | None:
        """Return the fault for the request that has just arrived, or None. The server calls this."""
        if not self._next and self._always is None:
            return None
        with self._lock:
            return self._next.popleft() if self._next else self._always

    def delayed(self, answer: Answer, fault: Fault | None) -> Answer:
        """Return `answer` with this endpoint's waits before it. The server calls this."""
        waits: list[Pause] = []
        with self._lock:
            if self._gate is not None and not self._gate.is_released:
                waits.append(self._gate.hold_one())
        if self.latency:
            waits.append(self.latency)
        if fault is not None and fault.hangs:
            waits.append(self._closing)
        return replace(answer, waits=(*waits, *answer.waits)) if waits else answer

    def let_go(self) -> None:
        """Release the held responses. The server calls this when it closes."""
        with self._lock:
            if self._gate is not None:
                self._gate.release()


def _check(fault: object) -> None:
    """Raise an error if `fault` is not a `Fault`. Otherwise the next request would fail."""
    check("fault", fault, Fault, "a Fault", "Write, for example, faults.reply(503).")
