"""Steps of a plan, and the two drivers that run a plan: one sync and one async.

A plan is a generator. A plan decides which step is next, but never waits, reads or sends. The plan yields the step, the
driver runs the step, and the plan gets the result. So each plan is written once, for sync and async code. A test can
run a plan with `next` and `send`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Generator
from typing import Any


class Step(ABC):
    """A step that a driver can run without the caller."""

    __slots__ = ()

    @abstractmethod
    def run(self) -> object:
        """Run the step, and block this thread meanwhile; return the result for the plan."""

    @abstractmethod
    def arun(self) -> Awaitable[object]:
        """Run the step without blocking the event loop; return the result for the plan."""


def run_steps(plan: Generator[Any, Any, Any], answer: object = None) -> Any:
    """Run `plan` to its end, or to a step that only the caller can run: to send a request.

    Args:
        plan: the plan.
        answer: the result of the plan's last step; None for a new plan.

    Returns:
        that step; or the plan's return value, if the plan has ended.
    """
    while True:
        try:
            step = plan.send(answer)
        except StopIteration as end:
            return end.value
        if not isinstance(step, Step):
            return step
        try:
            answer = step.run()
        except BaseException:  # an interrupt, or a cancellation: the plan ends now, not when somebody drops the error
            plan.close()
            raise


async def arun_steps(plan: Generator[Any, Any, Any], answer: object = None) -> Any:
    """`run_steps` for async code."""
    while True:
        try:
            step = plan.send(answer)
        except StopIteration as end:
            return end.value
        if not isinstance(step, Step):
            return step
        try:
            answer = await step.arun()
        except BaseException:  # as above
            plan.close()
            raise
