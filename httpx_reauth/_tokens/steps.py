"""Steps: what a plan asks its caller to do, and the two drivers that do it, one sync and one async.

A plan is a generator. It knows what comes next, and it never waits, reads or sends. It yields a step and gets what came
of it. So each plan is written once, for sync and async code, and is tested with `next` and `send`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Generator
from typing import Any


class Step(ABC):
    """A step that a driver takes by itself."""

    __slots__ = ()

    @abstractmethod
    def run(self) -> object:
        """Take it, and block this thread meanwhile; returns what the plan gets for it."""

    @abstractmethod
    def arun(self) -> Awaitable[object]:
        """Take it, and let this task wait meanwhile; returns what the plan gets for it."""


def run_steps(plan: Generator[Any, Any, Any], answer: object = None) -> Any:
    """Drive `plan` to its end, or to a step that only the caller can take: to send a request.

    Args:
        plan: the plan.
        answer: what the plan gets for the step at which it stands.

    Returns:
        that step; or what the plan returns, if it has ended.
    """
    while True:
        try:
            step = plan.send(answer)
        except StopIteration as end:
            return end.value
        if not isinstance(step, Step):
            return step
        answer = step.run()


async def arun_steps(plan: Generator[Any, Any, Any], answer: object = None) -> Any:
    """`run_steps` for async code."""
    while True:
        try:
            step = plan.send(answer)
        except StopIteration as end:
            return end.value
        if not isinstance(step, Step):
            return step
        answer = await step.arun()
