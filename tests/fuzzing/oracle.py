"""Checks each outcome: it must be documented, show no secret, and take little time and little memory."""

from __future__ import annotations

import logging
import pickle
import time
import traceback
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from httpx_reauth import ReauthError

MEMORY = 64 * 2**20  # the most bytes in one step; the longest input has two million
PATIENCE = 10.0  # the most seconds of this thread's CPU time in one step


@contextmanager
def bounded() -> Generator[None, None, None]:
    """Run one step, and assert that it takes little time and little memory."""
    tracemalloc.start()  # started only here, because it slows down everything
    begun = time.thread_time()
    try:
        yield
        taken, peak = time.thread_time() - begun, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < PATIENCE, "it took too long"
    assert peak < MEMORY, "it took too much memory"


class _Log(logging.Handler):
    """Keeps the log lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def outcome_of(call: Callable[[], Any], *secrets: str, documented: type[Exception] = ReauthError) -> Any:
    """Return the result of `call`, or its error.

    Neither the error nor the log may show a secret, and the error is documented.
    """
    log, logger = _Log(), logging.getLogger("httpx_reauth")
    logger.addHandler(log)
    try:
        with bounded():
            try:
                return call()
            except documented as error:
                check(error, *secrets)
                return error
    finally:
        logger.removeHandler(log)
        assert not any(secret in line for secret in secrets for line in log.lines), "a secret is logged"


def check(error: BaseException, *secrets: str) -> None:
    """Assert that `error` and its causes show none of `secrets`, and that it pickles without them."""
    texts = ["".join(traceback.format_exception(error))]
    seen: BaseException | None = error
    while seen is not None:
        texts += [str(seen), repr(seen), *(str(value) for value in vars(seen).values())]
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, ReauthError):
        assert str(error).isprintable()
        pickled = pickle.dumps(error)
        assert type(pickle.loads(pickled)) is type(error)
        texts.append(pickled.decode("latin-1"))
    for secret in secrets:
        for text in texts:
            assert secret not in text, "a secret is shown"
