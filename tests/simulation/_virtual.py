"""Patches the library, asyncio and trio, so that all that they do happens in virtual threads and virtual time."""

from __future__ import annotations

import _thread
import asyncio.events
import asyncio.runners
import asyncio.tasks
import gc
import logging
import random
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

from trio._core import _ki, _run
from trio._core._wakeup_socketpair import WakeupSocketpair

import httpx_reauth._pool
import httpx_reauth._state.store
import httpx_reauth._tokens._refresh.at_exit
import httpx_reauth._tokens._refresh.flight
import httpx_reauth._tokens._refresh.renewal
import httpx_reauth._tokens._refresh.signal
import httpx_reauth._tokens._refresh.sync
import httpx_reauth._tokens._refresh.worker
import httpx_reauth._tokens.manager
import httpx_reauth.storage.document

from ._loops import SimIO, SimLoop
from ._primitives import (
    FLIGHTS,
    LOW_LEVEL,
    THREADING,
    WALL_CLOCK,
    SimGate,
    SimLock,
    chance,
    choose,
    get_ident,
    jitter,
    monotonic,
    sleep,
)

_NO_MAIN_THREAD = SimpleNamespace(current_thread=lambda: None, main_thread=lambda: False)


class _Ordered(dict[object, None]):
    """A set whose order does not depend on addresses."""

    def add(self, item: object) -> None:
        self[item] = None

    def discard(self, item: object) -> None:
        self.pop(item, None)


def _substitutes() -> Iterator[Any]:
    """Whatever the core has of these, it has the kernel's instead."""
    ours = {
        id(httpx_reauth._state.store.LOCK): SimLock(),
        id(threading): THREADING,
        id(_thread): LOW_LEVEL,
        id(httpx_reauth._tokens._refresh.signal.Gate): SimGate,
        id(threading.get_ident): get_ident,
        id(time.sleep): sleep,
        id(time.monotonic): monotonic,
        id(random.uniform): jitter,
        id(random.random): chance,
        id(random.choice): choose,
    }
    for name, module in list(sys.modules.items()):
        if not name.startswith("httpx_reauth._"):
            continue
        for attribute, value in list(vars(module).items()):
            if id(value) in ours:
                yield mock.patch.object(module, attribute, ours[id(value)])


_init = httpx_reauth._tokens._refresh.flight.Flight.__init__


def _recorded(self: Any, worker: Any, *arguments: Any, **more: Any) -> None:
    FLIGHTS[worker] = self
    _init(self, worker, *arguments, **more)


@contextmanager
def virtual() -> Iterator[None]:
    """The library's threads, locks and chance are the kernel's, and so are asyncio's and trio's loops."""
    log = logging.getLogger("httpx_reauth")
    patches = [
        *_substitutes(),
        mock.patch.object(httpx_reauth._tokens._refresh.worker, "_workers", _Ordered()),
        mock.patch.object(httpx_reauth._tokens._refresh.flight.Flight, "__init__", _recorded),
        mock.patch.object(httpx_reauth._tokens._refresh.at_exit, "remember"),  # no process here ends by itself
        mock.patch.object(httpx_reauth.storage.document, "SYSTEM_CLOCK", WALL_CLOCK),
        mock.patch.object(asyncio.events, "new_event_loop", SimLoop),
        mock.patch.object(asyncio.tasks, "all_tasks", SimLoop.unfinished),
        # No virtual thread is the main one, so that none of their loops handles Ctrl-C.
        mock.patch.object(asyncio.runners, "threading", _NO_MAIN_THREAD, create=True),
        mock.patch.object(_ki, "is_main_thread", _ignore),
        mock.patch.object(WakeupSocketpair, "__init__", _ignore),  # `SimIO` is in its place
        mock.patch.object(WakeupSocketpair, "close", _ignore),
        mock.patch.object(_run, "TheIOManager", SimIO),
        mock.patch.object(httpx_reauth.Reauth._package, "url", cache(httpx_reauth.Reauth._package.url)),  # parsed once
        mock.patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        mock.patch.object(log, "disabled", True),
    ]
    collects = gc.isenabled()
    hook, sys.unraisablehook = sys.unraisablehook, _ignore  # what died with its process complains when it is collected
    for patch in patches:
        patch.start()
    gc.freeze()  # what was here before
    gc.disable()  # what is collected, and when, is no part of the schedule
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            finally:
                gc.unfreeze()
                gc.collect()
    finally:
        sys.unraisablehook = hook
        for patch in reversed(patches):
            patch.stop()
        if collects:
            gc.enable()


def _ignore(*_: object) -> None:
    pass
