"""Fixtures for the tests of signing in: sync and async runs, and checks that nothing leaks or is left."""

from __future__ import annotations

import logging
import threading

import pytest
from signing_in import Run, StandIn, run_by


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture(params=["run", "asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that calls `run()`, or `arun()` on one of the event loops, and returns the token."""
    return run_by(request.param)


@pytest.fixture(autouse=True)
def no_secret_in_the_log(caplog: pytest.LogCaptureFixture):
    """Assert after each test that no line of the library's log has a secret of the stand-in."""
    caplog.set_level(logging.DEBUG, "httpx_reauth")
    yield
    for record in caplog.get_records("call"):
        if record.name == "httpx_reauth":
            assert "s3cret" not in record.getMessage()


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Assert that no thread and no terminal setting outlives a sign-in.

    If a socket stays open, Python warns, and pytest makes an error of that.
    """
    yield
    assert "httpx_reauth.signin" not in {thread.name for thread in threading.enumerate()}
