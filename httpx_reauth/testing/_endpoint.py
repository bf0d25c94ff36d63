"""One half of a server, the token endpoint or the API: how slow it is, what goes wrong, and what is held back."""

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
    """Holds answers back until the test lets them go. Requests take effect when they arrive, all the same.

    Attributes:
        held: how many answers it has held back so far.
    """

    def __init__(self) -> None:
        self.held = 0
        self._signal = Signal()

    def release(self) -> None:
        """Send what is held, and hold nothing from then on."""
        self._signal.set()

    @property
    def is_released(self) -> bool:
        """Whether it has been released."""
        return self._signal.is_set()

    def hold_one(self) -> Signal:
        """Used by the server: one more answer waits for the returned signal."""
        self.held += 1
        return self._signal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Endpoint:
    """What can be ordered of the token endpoint, or of the API: `server.token_endpoint`, `server.api`.

    Attributes:
        latency: seconds between the arrival of a request (when it takes effect) and its answer.
    """

    def __init__(self, closing: Signal) -> None:
        self.latency = 0.0
        self._closing = closing
        self._lock = threading.Lock()
        self._next: deque[Fault] = deque()
        self._always: Fault | None = None
        self._gate: Gate | None = None

    def fail(self, *faults: Fault) -> None:
        """Let the next requests go wrong, each with one of `faults`, in this order; behind what was ordered before."""
        for fault in faults:
            _check(fault)
        with self._lock:
            self._next.extend(faults)

    def fail_always(self, fault: Fault) -> None:
        """Let every request go wrong with `fault`, until `heal()`; those ordered with `fail` come first."""
        _check(fault)
        with self._lock:
            self._always = fault

    def heal(self) -> None:
        """Forget all faults ordered so far."""
        with self._lock:
            self._next.clear()
            self._always = None

    def hold(self) -> Gate:
        """Hold back all answers from now on, until the gate's `release()` or the end of its `with` block."""
        with self._lock:
            self._gate = Gate()
            return self._gate

    def next_fault(self) -> Fault | None:
        """Used by the server: what is to go wrong with the request that has just arrived."""
        if not self._next and self._always is None:
            return None
        with self._lock:
            return self._next.popleft() if self._next else self._always

    def delayed(self, answer: Answer, fault: Fault | None) -> Answer:
        """Used by the server: `answer` with the waits that this endpoint puts before it."""
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
        """Used by the server when it closes: release what is held."""
        with self._lock:
            if self._gate is not None:
                self._gate.release()


def _check(fault: object) -> None:
    """Refuse at once what would fail when the next request arrives."""
    check("fault", fault, Fault, "a Fault", "Write, for example, faults.reply(503).")
