"""`reduce` and the policy against a model: written anew, from the guarantees' words, and small enough to be read.

(The table of every state and every action, with each field written out by hand, is `tests/state/test_reduce.py`.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from httpx_reauth import (
    AuthState,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    StorageError,
    Token,
)
from httpx_reauth._state.actions import FlightDropped, ReplayAccepted, ReplayRefused, ReplayStarted, Saved
from httpx_reauth._state.policy import Windows, back_off, decide, good_until, is_alive, quiet_time, windows
from httpx_reauth._state.state import reduce

LIFETIMES = st.sampled_from([0.0, 1.0, 20.0, 250.0, 3600.0, None])
ELAPSED = st.sampled_from([0.0, 0.5, 0.5, 4.0, 4.0, 4.0, 40.0])
ERRORS = st.sampled_from(["down", "down", "later", "refused", "final"])
REASONS = st.sampled_from(["missing", "expiring", "expired", "rejected"])


@dataclass
class Model:
    """What there is to know, in the plainest way."""

    status: str = "idle"
    token: str = ""  # its name, or nothing
    ends: float = inf
    lifetime: float | None = None
    refused: bool = False
    flight: int = 0  # the one under way, or 0
    error: str = ""
    failures: int = 0
    held_back_until: float = -inf
    trial: str = ""  # of the token: nothing, "tried" or "useless"
    useless: int = 0
    quiet_until: float = -inf
    unsaved: str = ""
    took: list[float] = field(default_factory=list)

    def renewed(self, token: str, lifetime: float | None, now: float, *, adopted: bool) -> None:
        self.status, self.token, self.lifetime = "fulfilled", token, lifetime
        self.ends = inf if lifetime is None else now + lifetime
        self.refused, self.flight, self.error = False, 0, ""
        self.unsaved = "signed in" if self.unsaved == "signed out" else ""  # a storage still holds the old one
        self.failures, self.held_back_until = 0, -inf
        self.trial = "useless" if adopted else ""

    def verdict(self, now: float, leeway: float) -> str:
        """Guarantees 6, 7 and 8: what to do about a request."""
        without = "refuse" if now < self.held_back_until and not self.flight else "wait"
        if not self.token or self.refused or now >= self.ends:
            return without
        if self.lifetime is None:
            return "use"
        renewed_from, waited_for_from = self.edges(leeway)
        if now >= waited_for_from:
            return "use" if without == "refuse" else "wait"
        if now < renewed_from:
            return "use"
        return "use" if self.flight or without == "refuse" else "renew"

    def edges(self, leeway: float) -> tuple[float, float]:
        """From when the token is renewed in the background, and from when it is waited for."""
        lifetime = self.lifetime or 0.0
        last_call = min(5.0, lifetime / 50)
        slowest = max(self.took[-5:], default=0.0)
        for_slow_ones = min(1.5 * slowest, slowest + lifetime / 40) + last_call
        window = max(min(leeway, lifetime / 4), min(for_slow_ones, lifetime / 2), last_call)
        return self.ends - window, self.ends - last_call


class StateAndPolicy(RuleBasedStateMachine):
    """Whatever happens, in whatever order: both agree about the state and about what to do."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.model = AuthState(), Model()
        self.now = 1_000.0
        self.flights: list[object] = [object()]  # the one at 0 has never begun
        self.numbers = 0

    def apply(self, action: object) -> bool:
        before = self.state
        self.state = reduce(before, action)  # type: ignore[arg-type]
        return self.state is not before

    def new_token(self, lifetime: float | None) -> Token:
        self.numbers += 1
        return Token(f"access-{self.numbers}", refresh_token=f"refresh-{self.numbers}", expires_in=lifetime)

    def some_flight(self, data: st.DataObject) -> int:
        """The one under way, most of the time."""
        others = st.integers(0, len(self.flights) - 1)
        return data.draw(st.sampled_from([self.model.flight] * 3 + [data.draw(others)]))

    @rule(seconds=st.sampled_from([0.1, 0.4, 0.5, 1.0, 4.0, 19.0, 60.0, 245.0, 3500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.model.lifetime)
    @rule(which=st.integers(0, 3), beside=st.sampled_from([-0.01, 0.01]), leeway=st.sampled_from([0.0, 60.0]))
    def it_is_time(self, which: int, beside: float, leeway: float) -> None:
        """One of the moments at which the verdict may change has just come, or is just about to."""
        moment = [*self.model.edges(leeway), self.model.ends, self.model.held_back_until][which]
        if self.now < moment + beside < inf:
            self.now = moment + beside

    @rule(reason=REASONS, stale=st.booleans())
    def refresh_begins(self, reason: str, stale: bool) -> None:
        self.flights.append(object())
        basis = AuthState() if stale else self.state
        is_elected = self.apply(RefreshPending(reason, flight=self.flights[-1], basis=basis))  # type: ignore[arg-type]
        assert is_elected == (not self.model.flight and not stale)
        if is_elected:
            self.model.flight, self.model.status, self.model.error = len(self.flights) - 1, "pending", ""
            self.model.refused = self.model.refused or reason == "rejected"

    @rule(data=st.data(), lifetime=LIFETIMES, elapsed=ELAPSED, adopted=st.booleans())
    def refresh_answers(self, data: st.DataObject, lifetime: float | None, elapsed: float, adopted: bool) -> None:
        flight = self.some_flight(data)
        token = self.new_token(lifetime)
        deadline = inf if lifetime is None else self.now + lifetime
        action = RefreshFulfilled(token, "expired", elapsed, adopted, flight=self.flights[flight], deadline=deadline)
        counts = self.apply(action)
        assert counts == (flight != 0 and flight == self.model.flight)
        if counts:
            self.model.renewed(token.access_token, lifetime, self.now, adopted=adopted)
            if not adopted:
                self.model.took.append(elapsed)

    @rule(data=st.data(), kind=ERRORS, jitter=st.floats(0, 1))
    def refresh_fails(self, data: st.DataObject, kind: str, jitter: float) -> None:
        flight = self.some_flight(data)
        error = {
            "down": RefreshError("down", status_code=503),
            "later": RefreshError("later", status_code=429, retry_after=20.0),
            "refused": RefreshError("refused", status_code=401, error="invalid_client"),
            "final": SignInRequired("dead"),
        }[kind]
        number = self.state.record.failures + 1
        wait = back_off(error, number, jitter)
        longest = min(0.5 * 2 ** (number - 1), 30.0)
        if kind == "down":
            assert 0.8 * longest <= wait <= longest
        else:
            assert wait == {"later": max(20.0, wait), "refused": 60.0, "final": inf}[kind]
        action = RefreshRejected(error, "expired", 1.0, flight=self.flights[flight], retry_at=self.now + wait)
        counts = self.apply(action)
        assert counts == (flight != 0 and flight == self.model.flight)
        if counts:
            model = self.model
            model.status, model.flight, model.error = "rejected", 0, str(error)
            model.failures, model.held_back_until = model.failures + 1, self.now + wait

    @precondition(lambda self: self.model.token and not self.model.flight)
    @rule(data=st.data(), kind=ERRORS)
    def a_401_comes_and_the_refresh_fails(self, data: st.DataObject, kind: str) -> None:
        self.refresh_begins("rejected", stale=False)
        self.verdicts_agree()
        self.refresh_fails(data, kind, 0.0)

    @precondition(lambda self: not self.model.flight)
    @rule(data=st.data(), times=st.integers(1, 9))
    def the_server_is_down(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            if not self.model.flight:
                self.refresh_begins("expired", stale=False)
            self.refresh_fails(data, "down", 0.0)

    @rule(lifetime=LIFETIMES)
    def somebody_signs_in(self, lifetime: float | None) -> None:
        token = self.new_token(lifetime)
        deadline = inf if lifetime is None else self.now + lifetime
        assert self.apply(SignedIn(token, deadline=deadline))
        took, self.model = self.model.took, Model(token=token.access_token, ends=deadline, lifetime=lifetime)
        self.model.took, self.model.unsaved = took, "signed in"

    @rule()
    def somebody_signs_out(self) -> None:
        if self.apply(SignedOut()):
            self.model = Model(unsaved="signed out")
        else:
            assert (self.model.status, self.model.token) == ("idle", "")

    @precondition(lambda self: self.state.token is not None)
    @rule(mine=st.booleans())
    def replay_begins(self, mine: bool) -> None:
        token = self.state.token if mine else Token("another")
        assert token is not None
        until = self.now + quiet_time(self.model.useless + 1)
        if self.apply(ReplayStarted(token, until)):
            assert mine
            assert not self.model.trial
            self.model.trial, self.model.quiet_until = "tried", max(self.model.quiet_until, until)

    @precondition(lambda self: self.state.tried)
    @rule(mine=st.booleans())
    def replay_is_refused(self, mine: bool) -> None:
        token = self.state.token if mine else Token("another")
        assert token is not None
        seconds = quiet_time(self.model.useless + 1)
        assert seconds == min(2**self.model.useless, 60)
        if self.apply(ReplayRefused(token, self.now + seconds)):
            assert mine
            assert self.model.trial == "tried"
            self.model.trial, self.model.useless = "useless", self.model.useless + 1
            self.model.quiet_until = self.now + seconds

    @precondition(lambda self: not self.model.flight)
    @rule(data=st.data(), times=st.integers(1, 9))
    def every_new_token_is_refused(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            self.refresh_begins("rejected", stale=False)
            self.refresh_answers(data, 3600.0, 0.5, adopted=False)
            if self.model.trial == "" and not self.model.flight:
                self.replay_begins(mine=True)
                self.replay_is_refused(mine=True)
            self.states_agree()

    @rule()
    def replay_is_accepted(self) -> None:
        if self.apply(ReplayAccepted()):
            self.model.useless, self.model.quiet_until = 0, -inf
            self.model.trial = "tried" if self.model.trial else ""
        else:
            assert (self.model.useless, self.model.quiet_until) == (0, -inf)

    @precondition(lambda self: self.state.token is not None)
    @rule(mine=st.booleans())
    def save_fails(self, mine: bool) -> None:
        told = self.apply(SaveFailed(StorageError("full"), token=self.state.token if mine else Token("another")))
        after = {"": "renewed", "signed in": "signed in, told"}.get(self.model.unsaved) if mine else None
        assert told == (after is not None)
        self.model.unsaved = after or self.model.unsaved

    @rule()
    def save_succeeds(self) -> None:
        assert self.apply(Saved(self.state.token)) == bool(self.model.unsaved)
        self.model.unsaved = ""

    @rule(data=st.data())
    def process_is_forked(self, data: st.DataObject) -> None:
        flight = self.some_flight(data)
        if self.apply(FlightDropped(self.flights[flight])):
            assert flight == self.model.flight
            self.model.status, self.model.flight = "idle", 0
        else:
            assert flight == 0 or flight != self.model.flight

    @invariant()
    def states_agree(self) -> None:
        state, model = self.state, self.model
        assert (state.status, state.refused, state.unsaved) == (model.status, model.refused, model.unsaved)
        assert ("" if state.token is None else state.token.access_token) == model.token
        assert ("" if state.error is None else str(state.error)) == model.error
        assert (state.flight is None) == (model.flight == 0)
        assert state.flight is None or state.flight is self.flights[model.flight]
        assert (state.record.failures, state.record.retry_at) == (model.failures, model.held_back_until)
        assert (state.record.useless, state.record.quiet_until) == (model.useless, model.quiet_until)
        assert state.useless == (model.trial == "useless")
        assert state.deadline == model.ends

    @invariant()
    def verdicts_agree(self) -> None:
        """Now, and on both sides of every moment to come at which the verdict may change."""
        model = self.model
        for leeway in (0.0, 10.0, 60.0):
            window = windows(self.state, leeway)
            edges = [*model.edges(leeway), model.ends, model.held_back_until] if model.lifetime else []
            moments = [self.now, *(edge + beside for edge in edges for beside in (-0.01, 0.01))]
            for moment in moments:
                if self.now <= moment < inf:
                    self.verdict_agrees(window, moment, model.verdict(moment, leeway))

    def verdict_agrees(self, window: Windows, moment: float, expected: str) -> None:
        verdict, _ = decide(self.state, window, moment)
        assert verdict == expected
        is_good = bool(self.model.token) and not self.model.refused and moment < self.model.ends
        assert is_alive(self.state, moment) == is_good
        if moment < good_until(self.state, window):
            assert verdict == "use"


StateAndPolicy.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_state_and_policy_are_as_the_model_says = StateAndPolicy.TestCase
