"""Tests of `reduce` and the policy against a model. The model is small, and follows the words of the guarantees.

At the end are bugs made by hand. The model must find each of them. (The table of every state and every action is
`tests/state/test_reduce.py`.)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from inspect import getsource
from math import inf
from types import ModuleType
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from httpx_reauth import (
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
from httpx_reauth._state import policy, reduce
from httpx_reauth._state.actions import (
    FlightDropped,
    Loaded,
    ReplayAccepted,
    ReplayEnded,
    ReplayRefused,
    ReplayStarted,
    Saved,
    SaveStarted,
    StorageGiven,
    TokenGiven,
    TokenRefused,
    WriteSuperseded,
)
from httpx_reauth._state.state import State, Stored

LIFETIMES = st.sampled_from([0.0, 1.0, 20.0, 250.0, 3600.0, None])
ELAPSED = st.sampled_from([0.0, 0.5, 0.5, 4.0, 4.0, 4.0, 40.0])
ERRORS = st.sampled_from(["down", "down", "later", "final"])
REASONS = st.sampled_from(["missing", "expiring", "expired", "rejected"])
PLACES = [("https://api.test", f"/{number}") for number in range(8)]


@dataclass
class Place:
    """A place: how many fresh tokens in a row it refused, and until when it starts no refresh."""

    refusals: int = 0
    until: float = -inf
    is_on_trial: bool = False  # a request with a fresh token is on its way there


@dataclass
class Model:
    """All that the library may know, in the plainest form."""

    status: str = "idle"
    token: str | None = None  # its name; "" if there is only a refresh token; None if there is nothing
    refresh_token: str = ""
    ends: float = inf
    lifetime: float | None = None
    had_ended: bool = False  # it had ended already when it came
    refused: bool = False
    flight: int = 0  # the number of the running refresh, or 0
    error: str = ""
    failures: int = 0
    held_back_until: float = -inf
    useless_places: int = 0  # the number of useless replays in a row at different places
    quiet_until: float = -inf
    places: dict[tuple[str, str], Place] = field(default_factory=dict)
    has_storage: bool = True
    unsaved: str = ""
    is_failure_known: bool = False
    save_tries: int = 0
    is_read: bool = False
    took: list[float] = field(default_factory=list)
    ended_in_a_row: int = 0
    session: int = 0
    last_sign_out: int = 0

    def new_session(self, unsaved: str) -> Model:
        """Forget everything but how long refreshes take, and whether there is a storage and it was read."""
        model = Model(took=self.took, session=self.session + 1, last_sign_out=self.last_sign_out,
                      has_storage=self.has_storage, is_read=self.is_read)  # fmt: skip
        model.write(unsaved)
        return model

    def write(self, what: str) -> None:
        """Note that the storage does not hold the result of `what` yet."""
        if self.has_storage:
            self.unsaved, self.is_failure_known, self.save_tries = what, False, 0

    def could_not_save(self) -> None:
        """Note a failed save. What the storage does not know of a session still has to replace what it holds."""
        self.write("signed in" if self.unsaved.startswith("signed") else "renewed")

    def saved(self) -> None:
        if self.unsaved:
            self.write("")

    def is_good(self, now: float) -> bool:
        """Return whether the token may be sent at all."""
        if not self.token or self.refused:
            return False
        return now < self.ends or (self.had_ended and self.error == "dead")

    def verdict(self, now: float, leeway: float) -> tuple[str, str]:  # noqa: PLR0911 - a table
        """Return what to do about a request, and the reason for a refresh (guarantees 6, 7 and 8)."""
        is_held_back = now < self.held_back_until and not self.flight
        without = "refuse" if is_held_back else "wait"
        if self.has_storage and not self.is_read:  # a storage that was not read is read first
            if self.failures and self.is_good(now):  # the storage cannot be read: requests use the token that there is
                return ("use" if self.flight or is_held_back else "renew"), "missing"
            return without, "rejected" if self.refused else "missing"
        if not self.token:
            return without, "missing"
        if not self.is_good(now):
            return without, "rejected" if self.refused else "expired"
        renewed_from, waited_for_from = self.edges(leeway)
        if is_held_back or now < renewed_from:
            return "use", "expiring"
        if now >= waited_for_from:
            return "wait", "expired"
        return ("use" if self.flight else "renew"), "expiring"

    def edges(self, leeway: float) -> tuple[float, float]:
        """Return from when the token is renewed in the background, and from when requests wait for it."""
        if self.lifetime is None or self.ends == inf:
            return inf, inf
        last_call = min(5.0, self.lifetime / 50)
        slowest = max(self.took[-5:], default=0.0)
        for_slow_ones = min(1.5 * slowest, slowest + self.lifetime / 40) + last_call
        window = max(min(leeway, self.lifetime / 4), min(for_slow_ones, self.lifetime / 2), last_call)
        return self.ends - window, self.ends - last_call


class StateAndPolicy(RuleBasedStateMachine):
    """Makes random actions in random order.

    The library and the model must always agree about the state and what to do.
    """

    reduce: ClassVar[Any] = reduce  # the modules under test; a bug replaces them
    policy: ClassVar[Any] = policy

    def __init__(self) -> None:
        super().__init__()
        self.state, self.model = State(), Model(has_storage=False)
        self.now = 1_000.0
        self.flights: list[object] = [object()]  # the flight at 0 has never begun
        self.numbers = 0
        self.began: list[tuple[State, Model]] = []  # the state in which each request began

    @initialize(has_storage=st.booleans())
    def it_begins(self, has_storage: bool) -> None:
        if has_storage:
            self.state, self.model = State(stored=Stored()), Model()

    def apply(self, action: object) -> bool:
        before = self.state
        self.state = self.reduce.reduce(before, action)
        return self.state is not before

    def new_token(self, lifetime: float | None) -> Token:
        self.numbers += 1
        return Token(f"access-{self.numbers}", refresh_token=f"refresh-{self.numbers}", expires_in=lifetime)

    def it_has(self, token: Token, *, had_ended: bool) -> None:
        """Use this token from now on. Nothing is known of it yet."""
        model = self.model
        model.token, model.refresh_token = token.access_token, token.refresh_token or ""
        model.lifetime, model.ends = token.expires_in, self.end_of(token.expires_in)
        model.had_ended, model.refused = had_ended, False

    def end_of(self, lifetime: float | None) -> float:
        return inf if lifetime is None else self.now + lifetime

    def some_flight(self, data: st.DataObject) -> int:
        """Return a flight, mostly the running one."""
        others = st.integers(0, len(self.flights) - 1)
        return data.draw(st.sampled_from([self.model.flight] * 3 + [data.draw(others)]))

    @rule(seconds=st.sampled_from([0.1, 0.4, 0.5, 1.0, 4.0, 19.0, 60.0, 245.0, 3500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.model.lifetime)
    @rule(which=st.integers(0, 3), beside=st.sampled_from([-0.01, 0.01]), leeway=st.sampled_from([0.0, 60.0]))
    def it_is_time(self, which: int, beside: float, leeway: float) -> None:
        """Move the clock to just before or just after one of the moments at which the verdict may change."""
        moment = [*self.model.edges(leeway), self.model.ends, self.model.held_back_until][which]
        if self.now < moment + beside < inf:
            self.now = moment + beside

    @rule()
    def a_request_begins(self) -> None:
        self.began.append((self.state, Model(**vars(self.model))))

    # Refreshes.

    @rule(reason=REASONS, stale=st.booleans())
    def refresh_begins(self, reason: str, stale: bool) -> None:
        self.flights.append(object())
        expected = State() if stale else self.state
        action = RefreshPending(reason, flight=self.flights[-1], expected=expected)  # type: ignore[arg-type]
        is_elected = self.apply(action)
        assert is_elected == (not self.model.flight and not stale)
        if is_elected:
            self.model.flight, self.model.status, self.model.error = len(self.flights) - 1, "pending", ""

    @rule(data=st.data(), lifetime=LIFETIMES, elapsed=ELAPSED, adopted=st.booleans(), saved=st.booleans())
    def refresh_answers(
        self, data: st.DataObject, lifetime: float | None, elapsed: float, adopted: bool, saved: bool
    ) -> None:
        flight, model = self.some_flight(data), self.model
        token, had_ended = self.new_token(lifetime), lifetime == 0.0 and not adopted
        if saved:
            self.apply(Saved(token))  # the refresh saves the token before it publishes it
            model.is_read = model.has_storage
        counts = self.apply(
            RefreshFulfilled(
                token, "expired", elapsed, adopted, flight=self.flights[flight], deadline=self.end_of(lifetime),
                without_lifetime=int(had_ended), is_saved=saved,
            )
        )  # fmt: skip
        assert counts == (flight != 0 and flight == model.flight)
        if not counts:
            return
        self.it_has(token, had_ended=had_ended)
        model.ended_in_a_row = model.ended_in_a_row + 1 if had_ended else 0
        if model.ended_in_a_row > 1:
            model.ends = inf  # the token is used until a 401
        model.status, model.flight, model.error, model.failures, model.held_back_until = "fulfilled", 0, "", 0, -inf
        if saved:
            model.saved()
        else:
            model.could_not_save()
        if not adopted:
            model.took = [*model.took, elapsed]

    @rule(data=st.data(), kind=ERRORS, jitter=st.floats(0, 1))
    def refresh_fails(self, data: st.DataObject, kind: str, jitter: float) -> None:
        flight, back_off = self.some_flight(data), self.policy.back_off
        error = {
            "down": RefreshError("down", status_code=503),
            "later": RefreshError("later", status_code=429, retry_after=20.0),
            "final": SignInRequired("dead"),
        }[kind]
        number = self.state.refreshes.failures + 1
        wait = back_off(error, number, jitter)
        longest = min(0.5 * 2 ** (number - 1), 30.0)
        if kind == "down":
            assert 0.8 * longest <= wait <= longest
        else:
            assert wait == {"later": max(20.0, wait), "final": inf}[kind]
        action = RefreshRejected(error, "expired", 1.0, flight=self.flights[flight], retry_at=self.now + wait)
        counts = self.apply(action)
        assert counts == (flight != 0 and flight == self.model.flight)
        if counts:
            model = self.model
            model.status, model.flight, model.error = "rejected", 0, str(error)
            model.failures, model.held_back_until = model.failures + 1, self.now + wait

    @precondition(lambda self: self.model.flight and self.model.token is not None)
    @rule(is_ours=st.booleans(), is_saved=st.booleans())
    def refresh_fails_with_a_new_refresh_token(self, is_ours: bool, is_saved: bool) -> None:
        """Fail with a useless answer that has a new refresh token.

        The refresh may have renewed another token than ours.
        """
        model, asked = self.model, self.state.token
        assert asked is not None
        if not is_ours:
            asked = self.new_token(20.0)
        rotated = replace(asked, refresh_token="rotated")
        action = RefreshRejected(
            RefreshError("useless"), "expired", 1.0, flight=self.state.flight, retry_at=self.now, rotated=rotated,
            deadline=self.end_of(20.0), is_saved=is_saved,
        )  # fmt: skip
        assert self.apply(action)
        if is_ours:
            model.refresh_token = "rotated"
        else:
            self.it_has(rotated, had_ended=False)
            model.ended_in_a_row = 0
        model.status, model.flight, model.error = "rejected", 0, "useless"
        model.failures, model.held_back_until = model.failures + 1, self.now
        if is_saved:
            model.saved()
        else:
            model.could_not_save()

    @rule(of_now=st.booleans())
    def a_server_refuses_the_token(self, of_now: bool) -> None:
        counts = self.apply(TokenRefused((of_now and self.state.token) or Token("another")))
        assert counts == (of_now and self.model.token is not None and not self.model.refused)
        self.model.refused = self.model.refused or counts

    @precondition(lambda self: self.model.token and not self.model.flight)
    @rule(data=st.data(), kind=ERRORS)
    def a_401_comes_and_the_refresh_fails(self, data: st.DataObject, kind: str) -> None:
        self.a_server_refuses_the_token(of_now=True)
        self.refresh_begins("rejected", stale=False)
        self.verdicts_agree()
        self.refresh_fails(data, kind, 0.0)

    @precondition(lambda self: not self.model.flight)
    @rule(
        data=st.data(),
        lifetime=st.sampled_from([0.0, 0.0, 20.0]),
        times=st.integers(1, 3),
        adopted=st.booleans(),
        saved=st.booleans(),
    )
    def it_is_renewed(self, data: st.DataObject, lifetime: float, times: int, adopted: bool, saved: bool) -> None:
        """Renew several times in a row. The server's clock may be wrong, and the storage may be full."""
        for _ in range(times):
            if not self.model.flight:
                self.refresh_begins("expired", stale=False)
            self.refresh_answers(data, lifetime, 4.0, adopted=adopted, saved=saved)
            self.states_agree()
            self.verdicts_agree()

    @precondition(lambda self: not self.model.flight)
    @rule(data=st.data(), times=st.integers(1, 9))
    def it_is_down(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            if not self.model.flight:
                self.refresh_begins("expired", stale=False)
            self.refresh_fails(data, "down", 0.0)

    @precondition(lambda self: self.model.token and not self.model.flight)
    @rule(is_ours=st.booleans(), is_saved=st.booleans())
    def a_401_comes_and_the_answer_is_useless(self, is_ours: bool, is_saved: bool) -> None:
        self.a_server_refuses_the_token(of_now=True)
        self.refresh_begins("rejected", stale=False)
        self.refresh_fails_with_a_new_refresh_token(is_ours, is_saved)

    @precondition(lambda self: not self.model.flight)
    @rule(data=st.data())
    def a_token_that_had_ended_cannot_be_renewed(self, data: st.DataObject) -> None:
        self.somebody_signs_in(0.0)
        self.storage_is_read()
        self.refresh_begins("expired", stale=False)
        self.refresh_fails(data, "final", 0.0)

    @rule(data=st.data())
    def process_is_forked(self, data: st.DataObject) -> None:
        flight = self.some_flight(data)
        if self.apply(FlightDropped(self.flights[flight])):
            assert flight == self.model.flight
            self.model.status, self.model.flight = "idle", 0
            self.model.held_back_until = -inf
        else:
            assert flight == 0 or flight != self.model.flight

    # Sessions.

    @rule(lifetime=LIFETIMES, is_bare=st.booleans())
    def somebody_signs_in(self, lifetime: float | None, is_bare: bool = False) -> None:
        token, had_ended = self.new_token(lifetime), lifetime == 0.0
        if is_bare:
            token = Token(refresh_token=token.refresh_token, expires_in=lifetime)
        assert self.apply(SignedIn(token, deadline=self.end_of(lifetime), has_no_lifetime=had_ended))
        self.model = self.model.new_session("signed in")
        self.it_has(token, had_ended=had_ended)
        self.model.ended_in_a_row = int(had_ended)

    @rule()
    def somebody_signs_out(self) -> None:
        model = self.model
        changes = model.has_storage or model.token is not None or model.status != "idle"
        assert self.apply(SignedOut()) == changes
        if changes:
            self.model = model.new_session("signed out")
            self.model.last_sign_out = self.model.session

    @rule(lifetime=LIFETIMES)
    def a_first_token_is_given(self, lifetime: float | None) -> None:
        """Give a token by `Reauth(token=...)`. It seeds an empty store, and is not a sign-in."""
        model, token, had_ended = self.model, self.new_token(lifetime), lifetime == 0.0
        counts = self.apply(TokenGiven(token, deadline=self.end_of(lifetime), has_no_lifetime=had_ended))
        assert counts == (model.token is None and not model.flight)
        if counts:
            self.it_has(token, had_ended=had_ended)
            model.ended_in_a_row = int(had_ended)
            model.status, model.error, model.failures, model.held_back_until = "idle", "", 0, -inf
            if model.unsaved == "signed out":
                model.write("signed in")

    # Replays: a request is sent again with a fresh token.

    @rule(place=st.sampled_from(PLACES), of_now=st.booleans())
    def replay_begins(self, place: tuple[str, str], of_now: bool) -> None:
        """Begin a replay.

        Until its answer comes, a 401 from that place does not start a refresh of the token that is tried there.
        """
        model, known = self.model, self.model.places.get(place, Place())
        session = model.session if of_now else model.session + 1
        counts = self.apply(ReplayStarted(place, session=session, at=self.now))
        assert counts == (of_now and self.now >= known.until)
        if counts:
            until = self.now + min(2.0**known.refusals, 900.0)
            model.places[place] = Place(known.refusals, until, is_on_trial=True)

    @rule(place=st.sampled_from(PLACES), of_now=st.booleans())
    def replay_is_refused(self, place: tuple[str, str], of_now: bool) -> None:
        model, known = self.model, self.model.places.get(place, Place())
        self.apply(ReplayRefused(place, session=model.session if of_now else model.session + 1, at=self.now))
        if not of_now or (self.now < known.until and not known.is_on_trial):
            return  # `states_agree` checks that nothing has changed
        if not known.refusals and self.now >= model.quiet_until:
            model.useless_places += 1
            if model.useless_places >= 3:
                model.quiet_until = self.now + min(2.0 ** (model.useless_places - 3), 60.0)
        model.places[place] = Place(known.refusals + 1, self.now + min(2.0**known.refusals, 900.0))

    @rule(place=st.sampled_from(PLACES), of_now=st.booleans())
    def replay_gets_no_answer(self, place: tuple[str, str], of_now: bool) -> None:
        model, known = self.model, self.model.places.get(place, Place())
        counts = self.apply(ReplayEnded(place, session=model.session if of_now else model.session + 1))
        assert counts == (of_now and known.is_on_trial)
        if counts and known.refusals:
            model.places[place] = Place(known.refusals)
        elif counts:
            model.places.pop(place)

    @rule(place=st.sampled_from(PLACES))
    def replay_is_accepted(self, place: tuple[str, str]) -> None:
        self.apply(ReplayAccepted(place))
        self.model.useless_places, self.model.quiet_until = 0, -inf
        self.model.places.pop(place, None)

    @rule(number=st.integers(1, 12))
    def places_refuse_one_after_the_other(self, number: int) -> None:
        for place in PLACES[:number] * 2:
            self.replay_begins(place, of_now=True)
            self.replay_is_refused(place, of_now=True)
            self.states_agree()

    @rule(times=st.integers(0, 4), end=st.sampled_from(["refused", "accepted", "no answer"]))
    def one_place_refuses_again_and_again(self, times: int, end: str) -> None:
        for _ in range(times):
            self.replay_begins(PLACES[0], of_now=True)
            self.replay_is_refused(PLACES[0], of_now=True)
            self.states_agree()
            self.now = self.model.places[PLACES[0]].until
        if end == "accepted":
            self.replay_is_accepted(PLACES[0])
        elif end == "no answer":
            self.replay_begins(PLACES[0], of_now=True)
            self.replay_gets_no_answer(PLACES[0], of_now=True)
        self.states_agree()

    # The storage.

    @precondition(lambda self: not self.model.has_storage)
    @rule()
    def storage_is_given(self) -> None:
        """Give a storage to a store that had none. The sign-ins and sign-outs before it count."""
        assert self.apply(StorageGiven())
        model = self.model
        model.has_storage = True
        if model.session:
            model.write("signed out" if model.token is None else "signed in")

    @precondition(lambda self: not self.model.has_storage)
    @rule()
    def storage_is_given_after_a_sign_out(self) -> None:
        self.somebody_signs_in(20.0)
        self.somebody_signs_out()
        self.storage_is_given()

    @precondition(lambda self: self.model.has_storage and not self.model.flight)
    @rule(data=st.data())
    def storage_is_away(self, data: st.DataObject) -> None:
        self.somebody_signs_in(20.0)
        self.refresh_begins("missing", stale=False)
        self.refresh_fails(data, "down", 0.0)

    @precondition(lambda self: self.model.has_storage)
    @rule()
    def another_storage_is_given(self) -> None:
        assert not self.apply(StorageGiven())

    @rule()
    def storage_is_read(self) -> None:
        self.apply(Loaded(Token("stored")))
        self.model.is_read = self.model.has_storage

    @rule(mine=st.booleans())
    def save_fails(self, mine: bool) -> None:
        told = self.apply(SaveFailed(StorageError("full"), token=self.state.token if mine else Token("another")))
        assert told == (mine and bool(self.model.unsaved) and not self.model.is_failure_known)
        self.model.is_failure_known = self.model.is_failure_known or told

    @rule(outdated=st.booleans())
    def save_succeeds(self, outdated: bool) -> None:
        """Save the token, or find that another process has saved a better one."""
        if outdated and self.state.token is not None:
            self.apply(WriteSuperseded(self.state.token))
        else:
            self.apply(Saved(self.state.token))
            self.model.is_read = self.model.has_storage
        self.model.saved()

    @rule()
    def another_token_is_saved(self) -> None:
        """Note the save of another token, as a superseded refresh does."""
        self.apply(WriteSuperseded(Token("another")))
        self.apply(Saved(Token("another")))
        self.model.is_read = self.model.has_storage

    @rule()
    def save_is_tried_again(self) -> None:
        assert self.apply(SaveStarted(self.now + 5.0)) == bool(self.model.unsaved)
        self.model.save_tries += bool(self.model.unsaved)

    # The library and the model agree.

    @invariant()
    def states_agree(self) -> None:
        state, model, public = self.state, self.model, self.state.as_public()
        current, stored = state.current, state.stored or Stored()
        assert (public.status, "" if public.error is None else str(public.error)) == (model.status, model.error)
        assert (None if current is None else current.token.access_token) == model.token
        if current is not None:
            assert (current.token.refresh_token, current.refused) == (model.refresh_token, model.refused)
            assert (current.deadline, current.without_lifetime) == (model.ends, model.ended_in_a_row)
        assert (state.flight is None) == (model.flight == 0)
        assert state.flight is None or state.flight is self.flights[model.flight]
        assert (state.session, state.last_sign_out) == (model.session, model.last_sign_out)
        assert (state.refreshes.failures, state.refreshes.until) == (model.failures, model.held_back_until)
        assert (state.replays.failures, state.replays.until) == (model.useless_places, model.quiet_until)
        known = {place: Place(one.failures, one.until, one.is_on_trial) for place, one in state.places.items()}
        assert known == model.places
        assert (state.stored is not None) == model.has_storage
        assert (stored.pending_write, stored.is_failure_known) == (model.unsaved, model.is_failure_known)
        assert (stored.saves.failures, stored.is_loaded) == (model.save_tries, model.is_read)

    @invariant()
    def verdicts_agree(self) -> None:
        """Compare the verdicts now, and just before and after every later moment at which they may change."""
        model, policy = self.model, self.policy
        for leeway in (0.0, 10.0, 60.0):
            if model.lifetime is not None and model.ends < inf:
                assert [round(edge, 6) for edge in policy.windows(self.state, leeway)] == [
                    round(edge, 6) for edge in model.edges(leeway)
                ]
            edges = [*model.edges(leeway), model.ends, model.held_back_until]
            moments = [self.now, *(edge + beside for edge in edges for beside in (-0.01, 0.01))]
            for moment in moments:
                if self.now <= moment < inf:
                    verdict, reason, until = policy.decide(self.state, moment, leeway)
                    assert (verdict, reason) == model.verdict(moment, leeway)
                    assert policy.is_alive(self.state, moment) == model.is_good(moment)
                    assert verdict == "use" or until == -inf

    @invariant()
    def a_401_renews_where_that_may_help(self) -> None:
        model = self.model
        # If the token has ended meanwhile, its 401 says nothing about the place.
        has_ended = model.token is not None and self.now >= model.ends and not model.ended_in_a_row
        for place in PLACES:
            here = model.places.get(place, Place())
            may = has_ended or (self.now >= model.quiet_until and self.now >= here.until)
            assert self.policy.may_renew_for(self.state, place, self.now) == may

    @invariant()
    def nobody_acts_as_somebody_else(self) -> None:
        for began, then in self.began:
            is_same = then.session == self.model.session
            signed_in_since = not is_same and self.model.last_sign_out <= then.session
            assert self.policy.takes_over(began, self.state) == (is_same or (then.token is None and signed_in_since))


StateAndPolicy.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_state_and_policy_are_as_the_model_says = StateAndPolicy.TestCase


# Bugs made by hand: for each one, the line of the library that it changes, and the line that replaces it.

BUGS = {
    "an answer of a refresh that nobody waits for counts": (
        "action.flight is not state.flight", "False"),
    "two refreshes at once": (
        "return state.flight is not None or (action.expected", "return (action.expected"),
    "a refresh begins on a state that has changed": (
        "action.expected is not state)", "False)"),
    "a refused token is sent again": (
        "return state._replace(current=replace(state.current, refused=True))", "return state"),
    "a late 401 refuses the newer token": (
        "or state.token is not action.token\n        case StorageGiven", "\n        case StorageGiven"),
    "a failure is forgotten at the next sign-in only": (
        "        refreshes=NO_BACK_OFF,\n        durations", "        durations"),
    "each failure is the first": (
        "max(state.refreshes.failures + 1, action.failures)", "1"),
    "a sign-in keeps what was learned of the last session": (
        "        session=state.session + 1,", "        session=state.session + 1, refreshes=state.refreshes,"),
    "a sign-in is no new session": (
        "        session=state.session + 1,", "        session=state.session,"),
    "a sign-out is taken for a sign-in": (
        "last_sign_out=state.session + 1)", "last_sign_out=state.last_sign_out)"),
    "a token of another session is taken over": (
        "return began.current is None and was", "return was"),
    "who never had a token takes none": (
        "return began.current is None and was_signed_in_anew(began, state)", "return False"),
    "a token of somebody who signed out meanwhile is taken over": (
        " and state.last_sign_out <= began.session", ""),
    "a token that came with its end is asked for for ever": (
        "inf if without_lifetime > 1 else action.deadline", "action.deadline"),
    "tokens that had ended are not counted": (
        "state.without_lifetime + action.without_lifetime if", "action.without_lifetime if"),
    "an adopted token counts as one without a lifetime": (
        "    if not action.adopted:\n", "    if True:\n"),
    "a token that was given when it had ended is not used": (
        "(bool(current.without_lifetime) and is_final(state.phase))", "False"),
    "a token that had ended is used before a refresh was tried": (
        "(bool(current.without_lifetime) and is_final(state.phase))",
        "bool(current.without_lifetime)"),
    "what could not be saved is forgotten": (
        'return _not_written(state, "" if action.is_saved else "renewed")', "return state"),
    "what could not be saved is taken for a renewal, although it was a sign-in": (
        'if state.pending_write in {"signed in", "signed out"}:', "if False:"),
    "what was saved is still to be saved": (
        'return _writing(state, "") if action.token is state.token else state', "return state"),
    "the save of a superseded refresh counts for the sign-in": (
        'return _writing(state, "") if action.token is state.token else state', 'return _writing(state, "")'),
    "a failed save is not told": (
        "return _stored(state, is_failure_known=True)", "return state"),
    "listeners hear of a failed save of a token that was replaced": (
        "is_known or not state.pending_write or action.token is not state.token",
        "is_known or not state.pending_write"),
    "a sign-out before there was a storage is not written to it": (
        "if state.session:  # a sign", "if state.current is not None:  # a sign"),
    "a first token replaces one that was there": (
        "return state.token is not action.replaces or state.flight is not None", "return state.flight is not None"),
    "a first token supersedes a login under way": (
        "return state.token is not action.replaces or state.flight is not None",
        "return state.token is not action.replaces"),
    "a rotated refresh token is thrown away": (
        "if action.rotated is not None:", "if False:"),
    "a rotated refresh token makes a refused token good": (
        "replace(current, token=action.rotated) if current is not None and is_same else fresh", "fresh"),
    "a token that has ended is not renewed where a fresh one was refused": (
        "if state.current is not None and has_expired(state.current, now):", "if False:"),
    "a place that refuses is asked for ever": (
        "_with_place(state, action.place, BackOff(place.failures + 1, until))", "state"),
    "a place is quiet for a second each time": (
        "until = policy.no_refresh_here_until(place.failures + 1, action.at)", "until = action.at + 1.0"),
    "a back-off of a place is prolonged while it lasts": (
        "if action.at < place.until and not place.is_on_trial:", "if False:"),
    "one place that refuses silences all": (
        "if not place.failures and action.at >= replays.until:", "if action.at >= replays.until:"),
    "all places are silent after the second": (
        "_ANYWHERE_FROM = 3", "_ANYWHERE_FROM = 2"),
    "an accepted replay resets nothing but its place": (
        "return _with_place(state, action.place, None)._replace(replays=NO_BACK_OFF)",
        "return _with_place(state, action.place, None)"),
    "an accepted replay does not reset its place": (
        "return _with_place(state, action.place, None)._replace(replays=NO_BACK_OFF)",
        "return state._replace(replays=NO_BACK_OFF)"),
    "a replay without an answer forgets what its place had refused": (
        "return _with_place(state, action.place, BackOff(failures) if failures else None)",
        "return _with_place(state, action.place, None)"),
    "a replay without an answer leaves its place on trial": (
        "or not state.places.get(action.place, NO_BACK_OFF).is_on_trial", "or True"),
    "a replay of a session that has ended counts": (
        "case ReplayRefused():\n            return action.session != state.session",
        "case ReplayRefused():\n            return False"),
    "while a fresh token is tried, a 401 renews it": (
        "BackOff(known.failures, until, is_on_trial=True)", "BackOff(known.failures, action.at, is_on_trial=True)"),
    "the answer of a trial does not count": (
        "BackOff(known.failures, until, is_on_trial=True)", "BackOff(known.failures, until)"),
    "a token is renewed at every request": (
        "max(min(leeway, lifetime * _LEEWAY_SHARE), min(slow", "max(leeway, min(slow"),
    "a slow endpoint is not renewed from earlier": (
        "slowest = max(state.durations, default=0.0)", "slowest = 0.0"),
    "a token is used to its very end while another can be had": (
        "    if now >= wait_from:\n", "    if False:\n"),
    "a token is not used to its very end when no other can be had": (
        "    if is_held_back and not is_pending:\n", "    if False:\n"),
    "while a refresh is under way, another one is started in the background": (
        "    if is_pending:\n        return", "    if False:\n        return"),
    "a storage that was not read is not read": (
        "if state.stored is not None and not state.stored.is_loaded:", "if False:"),
    "a storage that is away holds up requests whose token is good": (
        "if state.refreshes.failures and not is_refused and is_alive(state, now):", "if False:"),
    "a back-off that has no end": (
        "_BACK_OFF_MAX = 30.0", "_BACK_OFF_MAX = 3000.0"),
    "what a server asks for is not waited for": (
        "return max(wait, sane_retry_after(asked)) if isinstance(asked, (int, float)) else wait", "return wait"),
}  # fmt: skip


def with_bug(old: str, new: str) -> dict[str, ModuleType]:
    """Return the two modules, with `new` instead of `old`, which only one of them contains, and only once."""
    sources = {"policy": getsource(policy), "reduce": getsource(reduce)}
    assert sum(source.count(old) for source in sources.values()) == 1
    modules = {}
    for name, source in sources.items():
        module = modules[name] = ModuleType(f"httpx_reauth._state.{name}")
        exec(compile(source.replace(old, new), name, "exec"), vars(module))
    vars(modules["reduce"])["policy"] = modules["policy"]
    return modules


@pytest.mark.parametrize("bug", BUGS)
def test_the_model_finds_each_bug(bug: str):
    machine: Any = type("WithBug", (StateAndPolicy,), with_bug(*BUGS[bug]))
    once = settings(
        max_examples=2000,
        stateful_step_count=40,
        phases=[Phase.generate],
        deadline=None,
        derandomize=True,
        database=None,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=once)
