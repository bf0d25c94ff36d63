"""The places where hostile input enters. Each target is a strategy, and a function that takes one input."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import httpx2
from hypothesis import strategies as st
from redis_server import RedisServer

from httpx_reauth import Reauth, RefreshError, SignInRequired, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.oauth.driver import run
from httpx_reauth.testing import ManualClock

from .held import ciphertexts, files, keyrings, redis_values
from .inputs import ACCESS, CLIENT, REFRESH, Answer, documents, texts, values, whole_answers, wires
from .oracle import outcome_of
from .wire import Wire


class Target(NamedTuple):
    """A strategy, and `open`, which makes what is needed and yields the function that takes one input."""

    strategy: st.SearchStrategy[Any]
    open: Callable[[RedisServer | None], Any]


# --- token answers ---


def _is_told(body: bytes, secret: str) -> bool:
    """Return whether the server itself puts `secret` into its error. Then the library cannot know that it is secret."""
    return secret.encode() in body and b"error" in body


def _response(package: Any, answer: Answer) -> Any:
    return package.Response(answer.status, headers=answer.headers, content=answer.body)


@contextmanager
def _answers(_: RedisServer | None) -> Generator[Callable[[Answer], None], None, None]:
    """Check `Token.from_response` with the responses of both HTTP libraries, and with the fields."""

    def check(answer: Answer) -> None:
        secrets = () if _is_told(answer.body, ACCESS) else (ACCESS,)
        outcomes = [
            outcome_of(lambda p=p: Token.from_response(_response(p, answer)), *secrets) for p in (httpx, httpx2)
        ]
        try:
            fields = json.loads(answer.body)
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict):
            outcomes.append(outcome_of(lambda: Token.from_response(fields), *secrets))
        for outcome in outcomes:
            assert type(outcome) in (Token, RefreshError, SignInRequired)
            if isinstance(outcome, Token):
                assert outcome.access_token
                assert ACCESS not in repr(outcome).replace(repr(outcome.scope), "")
                outcome.renewed(outcome, 1_700_000_000.0)
            elif isinstance(outcome, RefreshError):
                outcome.resolve_retry_after(1_700_000_000.0)
                assert outcome.retry_after is None or 0 <= outcome.retry_after <= 86_400

    yield check


@contextmanager
def _mappings(_: RedisServer | None) -> Generator[Callable[[dict[str, Any]], None], None, None]:
    """Check `Token.from_response` with the fields of an answer that other code has read."""

    def check(fields: dict[str, Any]) -> None:
        outcome = outcome_of(lambda: Token.from_response(fields))
        assert type(outcome) in (Token, RefreshError, SignInRequired)

    yield check


@contextmanager
def _refreshes(_: RedisServer | None) -> Generator[Callable[[list[Answer]], None], None, None]:
    """Give a `Reauth` one answer after the other, while the clock advances."""

    def check(answers: list[Answer]) -> None:
        clock, left = ManualClock(), list(answers)

        def refresh(_: Token) -> Token:
            return Token.from_response(_response(httpx, left.pop(0)))

        auth = Reauth(refresh, token=Token(refresh_token=REFRESH), clock=clock)
        told = any(_is_told(answer.body, ACCESS) for answer in answers)
        for _step in answers:
            if left:
                held = auth.store.state.token
                # If an earlier answer has replaced the refresh token, it is spent, and unknown here.
                sent = (REFRESH,) if held is None or held.refresh_token == REFRESH else ()
                secrets = sent if told else (*sent, ACCESS)
                outcome = outcome_of(lambda: auth.get_token(rejected=auth.store.state.token), *secrets)
                assert type(outcome) in (Token, RefreshError, SignInRequired)
                assert not any(secret in repr(auth.store.state) + repr(auth) for secret in sent)
            clock.advance(100_000.0)  # after every back-off and Retry-After
        auth.close()

    yield check


# --- bytes on a socket ---

ONE_REQUEST_EACH = httpx.Limits(max_keepalive_connections=0)  # the server closes each connection in any case


@contextmanager
def _grants(_: RedisServer | None) -> Generator[Callable[[bytes], None], None, None]:
    """Check a whole request of a grant: connect, post, read, unpack, parse."""
    with Wire() as wire, httpx.Client(verify=False, trust_env=False, limits=ONE_REQUEST_EACH) as client:
        grant = RefreshTokenGrant(wire.url, "me", CLIENT, timeout=20.0, client=client)

        def check(data: bytes) -> None:
            wire.data, before = data, wire.requests
            secrets = (REFRESH, CLIENT) if _is_told(data, ACCESS) else (REFRESH, CLIENT, ACCESS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the standard library warns of odd cookies
                outcome = outcome_of(
                    lambda: run(grant, Token("a", refresh_token=REFRESH), sleep=lambda _: None), *secrets
                )
            assert type(outcome) in (Token, RefreshError, SignInRequired)
            assert wire.requests - before <= 3

        yield check


@contextmanager
def _refusals(_: RedisServer | None) -> Generator[Callable[[bytes], None], None, None]:
    """Check that a client with a `Reauth` gets the same answer or httpx error from an API as a client without."""

    def fare(call: Callable[[], httpx.Response]) -> Any:
        try:
            return call().status_code
        except Exception as error:  # noqa: BLE001 - a bare client gets the same exception of httpx
            return type(error)

    with Wire() as wire, httpx.Client(verify=False, trust_env=False, timeout=20.0, limits=ONE_REQUEST_EACH) as client:

        def check(data: bytes) -> None:
            wire.data, refreshes = data, []

            def refresh(token: Token) -> Token:
                refreshes.append(token)
                return Token("again", refresh_token="r")

            auth = Reauth(refresh, token=Token(ACCESS, refresh_token=REFRESH))
            bare = fare(lambda: client.get(wire.url))
            before = wire.requests
            assert fare(lambda: client.get(wire.url, auth=auth)) == bare
            assert len(refreshes) == (bare == 401)
            assert wire.requests - before == 1 + (bare == 401)

        yield check


_FIELDS = (
    "access_token",
    "refresh_token",
    "expires_in",
    "expires_at",
    "token_type",
    "scope",
    "error",
    "error_description",
    "x",
)

TARGETS = {
    "answers": Target(whole_answers, _answers),
    "mappings": Target(st.dictionaries(st.sampled_from(_FIELDS) | texts, values | texts), _mappings),
    "refreshes": Target(st.lists(whole_answers, min_size=1, max_size=4), _refreshes),
    "grants": Target(wires(), _grants),
    "refusals": Target(wires(), _refusals),
    "files": Target(documents, files),
    "keyrings": Target(documents, keyrings),
    "ciphertexts": Target(documents, ciphertexts),
    "redis": Target(documents, redis_values),
}  # fmt: skip
