"""Tests of a store's listeners: many of them, interrupts, and locks that other code replaces."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from statistics import median

import pytest
from steps import at_step, interrupt

from httpx_reauth import SignedIn, Token, TokenStore

STORE = inspect.getfile(TokenStore.dispatch)


def heard_by(store: TokenStore) -> list[str]:
    """Return a list that gets the access token of each sign-in that a listener of `store` gets."""
    tokens: list[str] = []
    store.subscribe(lambda state, action: tokens.append(action.token.access_token))
    return tokens


def cost_of_one_more(store: TokenStore) -> float:
    """Return how many bytes it takes, at most, to subscribe once more and to unsubscribe."""
    peaks = []
    tracemalloc.start()
    try:
        for _ in range(31):  # a table may grow in some of these rounds
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            store.subscribe(repr)()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return median(peaks)


def test_a_subscription_costs_the_same_with_16_000_listeners_as_with_16():
    costs = []
    for count in (16, 16_000):
        store = TokenStore()
        undo = [store.subscribe(repr) for _ in range(count)]
        costs.append(cost_of_one_more(store))
        for unsubscribe in undo:
            unsubscribe()
    few, many = costs
    assert many <= 2 * few


def test_an_interrupt_between_any_two_lines_of_a_dispatch_does_not_silence_the_store():
    step, was_reached = 0, True
    while was_reached:
        step += 1
        store = TokenStore()
        tokens = heard_by(store)
        was_reached = True
        with suppress(KeyboardInterrupt):
            was_reached = at_step(
                step, lambda store=store: store.dispatch(SignedIn(Token("a"))), interrupt, of="line", file=STORE
            )
        store.dispatch(SignedIn(Token("b")))
        store.dispatch(SignedIn(Token("c")))
        assert tokens[-2:] == ["b", "c"], f"before line {step}"
    assert step > 20


@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_finalizer_may_unsubscribe_at_any_bytecode_of_another_unsubscribe(others: int):
    step, was_reached = 0, True
    while was_reached:
        step += 1
        store = TokenStore()
        tokens = [heard_by(store) for _ in range(others)]
        gone: list[object] = []
        first = store.subscribe(lambda state, action, gone=gone: gone.append("first"))
        second = store.subscribe(lambda state, action, gone=gone: gone.append("second"))
        was_reached = at_step(step, first, second, of="opcode", file=STORE)
        if was_reached:
            store.dispatch(SignedIn(Token("a")))
            assert gone == []
            assert tokens == [["a"]] * others
    assert step > 1


def test_a_finalizer_may_subscribe_at_any_bytecode_of_another_subscribe():
    step, was_reached = 0, True
    while was_reached:
        step += 1
        store = TokenStore()
        store.subscribe(lambda state, action: None)
        heard: list[str] = []
        was_reached = at_step(
            step,
            lambda store=store, heard=heard: store.subscribe(lambda state, action: heard.append("first")),
            lambda store=store, heard=heard: store.subscribe(lambda state, action: heard.append("second")),
            of="opcode",
            file=STORE,
        )
        if was_reached:
            store.dispatch(SignedIn(Token("a")))
            assert sorted(heard) == ["first", "second"], f"at bytecode {step}"
    assert step > 10


LATE_PATCH = """
import os, sys, threading
from httpx_reauth import SignedIn, Token, TokenStore

def dispatch():
    assert TokenStore().dispatch(SignedIn(Token("a")))

dispatch()
kind, replaced = type(threading.RLock()), 0
for name, module in list(sys.modules.items()):  # as `eventlet.monkey_patch()` does, when it is called late
    for attribute, value in list(vars(module).items()) if name.startswith("httpx_reauth") else ():
        if isinstance(value, kind):
            setattr(module, attribute, locks.setdefault(value, threading._PyRLock()))
            replaced += 1
assert replaced
child = os.fork()
dispatch()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_works_after_eventlet_has_replaced_the_locks_of_all_modules():
    program = "locks = {}\n" + LATE_PATCH
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
