"""Tests of the two drivers of plans.

They take each step, and leave to the caller those that only the caller can take.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any

import pytest

from httpx_reauth._tokens.steps import Step, arun_steps, run_steps

pytestmark = pytest.mark.anyio


class Number(Step):
    """A step whose result is a number, with either driver."""

    def __init__(self, number: int, taken: list[str]) -> None:
        self.number = number
        self.taken = taken

    def run(self) -> int:
        self.taken.append("sync")
        return self.number

    def arun(self) -> Awaitable[int]:
        async def wait() -> int:
            self.taken.append("async")
            return self.number

        return wait()


def plan(taken: list[str], got: list[Any]) -> Generator[Any, Any, str]:
    got.append((yield Number(1, taken)))
    got.append((yield "for the caller"))
    got.append((yield Number(2, taken)))
    return "the end"


async def test_a_driver_takes_the_steps_between_those_of_the_caller():
    for kind in ("sync", "async"):
        taken: list[str] = []
        got: list[Any] = []
        steps = plan(taken, got)

        async def drive(answer: Any = None, kind: str = kind, steps: Any = steps) -> Any:
            return run_steps(steps, answer) if kind == "sync" else await arun_steps(steps, answer)

        assert await drive() == "for the caller"
        assert await drive("an answer") == "the end"
        assert (taken, got) == ([kind] * 2, [1, "an answer", 2])


async def test_what_a_plan_raises_goes_to_the_caller():
    def failing() -> Generator[Any, Any, None]:
        yield Number(1, [])
        raise LookupError("no")

    with pytest.raises(LookupError):
        run_steps(failing())
    with pytest.raises(LookupError):
        await arun_steps(failing())
