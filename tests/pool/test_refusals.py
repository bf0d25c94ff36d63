"""Tests that a refusal is remembered, although the object that got it has left the pool (guarantee 6)."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pool_service import Service
from storages import Recording

from httpx_reauth import Reauth, ReauthPool, RefreshError, SignInRequired, StorageError, Token
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import ManualClock, faults


class Endpoint:
    """A refresh that counts the refresh tokens it gets, and refuses those that the test names."""

    def __init__(self) -> None:
        self.asked: Counter[str | None] = Counter()
        self.errors: dict[str | None, Callable[[], Exception]] = {}

    def __call__(self, token: Token) -> Token:
        self.asked[token.refresh_token] += 1
        if token.refresh_token in self.errors:
            error = self.errors[token.refresh_token]()
            raise error
        return Token("new", refresh_token=token.refresh_token, expires_in=3600)

    def refuses(self, refresh_token: str | None, error: Callable[[], Exception] | None = None) -> None:
        self.errors[refresh_token] = error or (lambda: SignInRequired("dead"))


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture(params=["with a storage", "without a storage"])
def service(request: pytest.FixtureRequest, endpoint: Endpoint) -> Any:
    return Service(endpoint) if request.param == "with a storage" else ServiceWithoutStorage(endpoint)


class ServiceWithoutStorage(Service):
    """A service whose `make` finds the tokens of its users in a table."""

    def make(self, user: str) -> Reauth:
        return Reauth(self.refresh, token=self.storages.get(user), clock=self.clock)

    def connect(self, user: str, token: Token) -> None:
        self.storages[user] = token


def ask(pool: ReauthPool[str, Any], user: str) -> str:
    """Return the access token of `user`, or the type of the error."""
    try:
        return pool[user].get_token().access_token
    except (RefreshError, SignInRequired) as error:
        return type(error).__name__


def test_guarantee_6_a_dead_refresh_token_is_posted_once_though_its_object_leaves_after_each_request(service, endpoint):
    service.connect("a", Token(refresh_token="dead"))
    service.connect("b", Token(refresh_token="alive"))
    endpoint.refuses("dead")
    pool = service.pool(maxsize=1)
    answers = [(ask(pool, "a"), ask(pool, "b")) for _ in range(20)]
    assert answers == [("SignInRequired", "new")] * 20
    assert endpoint.asked["dead"] == 1


def test_guarantee_6_the_remembered_error_says_what_the_server_said(service, endpoint):
    service.connect("a", Token(refresh_token="dead"))
    endpoint.refuses("dead", lambda: SignInRequired("revoked by the user", error="invalid_grant"))
    pool = service.pool(maxsize=1)
    for _ in range(2):
        with pytest.raises(SignInRequired, match="revoked by the user") as caught:
            pool["a"].get_token()
        assert caught.value.error == "invalid_grant"
        pool["b"]
    assert service.made["a"] == 2 or isinstance(service, ServiceWithoutStorage)


def test_guarantee_6_a_back_off_goes_on_though_the_object_has_left(service, endpoint):
    service.connect("a", Token(refresh_token="busy"))
    endpoint.refuses("busy", lambda: RefreshError("not now", status_code=503, retry_after=100.0))
    pool = service.pool(maxsize=1)
    for turn in range(10):
        with pytest.raises(RefreshError) as caught:
            pool["a"].get_token()
        assert caught.value.retry_after == pytest.approx(100.0 - turn * 9.9)
        pool["b"]
        service.clock.advance(9.9)
    assert endpoint.asked["busy"] == 1
    service.clock.advance(1.1)
    ask(pool, "a")
    assert endpoint.asked["busy"] == 2


def test_guarantee_6_a_refusal_that_waits_a_minute_ends_after_that_minute_though_the_object_was_made_anew(
    service, endpoint
):
    service.connect("a", Token(refresh_token="r"))
    endpoint.refuses("r", lambda: RefreshError("wrong password", status_code=401, error="invalid_client"))
    pool = service.pool(maxsize=1)
    ask(pool, "a")
    pool["b"]
    service.clock.advance(59.0)
    assert ask(pool, "a") == "RefreshError"
    assert endpoint.asked["r"] == 1
    endpoint.errors.clear()
    service.clock.advance(1.1)
    assert ask(pool, "a") == "new"


def test_guarantee_6_the_back_off_of_an_object_that_leaves_grows_as_that_of_one_that_stays(service, endpoint):
    service.connect("a", Token(refresh_token="busy"))
    endpoint.refuses("busy", lambda: RefreshError("not now", status_code=503))
    pool = service.pool(maxsize=1)
    for _ in range(240):  # two minutes
        ask(pool, "a")
        pool["b"]
        service.clock.advance(0.5)
    assert endpoint.asked["busy"] <= 12, "0.5 s doubling to 30 s, less 20 % jitter"


def test_after_a_success_the_back_off_begins_anew(service, endpoint):
    service.connect("a", Token(refresh_token="r"))
    down = lambda: RefreshError("not now", status_code=503)  # noqa: E731
    endpoint.refuses("r", down)
    pool = service.pool(maxsize=1)
    for _ in range(8):
        ask(pool, "a")
        pool["b"]
        service.clock.advance(40.0)
    endpoint.errors.clear()
    assert ask(pool, "a") == "new"
    service.clock.advance(3600.0)
    endpoint.refuses("r", down)
    pool["b"]
    assert ask(pool, "a") == "RefreshError"
    pool["b"]
    service.clock.advance(0.6)
    endpoint.errors.clear()
    assert ask(pool, "a") == "new"


def test_a_login_that_failed_is_not_tried_again_by_each_new_object(service, endpoint):
    endpoint.refuses(None, lambda: RefreshError("wrong password", status_code=401, error="invalid_client"))
    pool = service.pool(maxsize=1)
    for _ in range(10):
        assert ask(pool, "tenant") == "RefreshError"
        pool["other"]
    assert endpoint.asked[None] == 1


def test_what_is_refused_to_one_user_is_not_refused_to_another(service, endpoint):
    endpoint.refuses(None)
    pool = service.pool(maxsize=1)
    assert ask(pool, "a") == ask(pool, "b") == "SignInRequired"
    assert endpoint.asked[None] == 2


def test_a_sign_in_on_another_host_helps_immediately_when_the_object_is_made_anew(endpoint):
    service = Service(endpoint)
    service.connect("a", Token(refresh_token="dead"))
    endpoint.refuses("dead")
    pool = service.pool(maxsize=1)
    assert ask(pool, "a") == "SignInRequired"
    pool["b"]
    service.connect("a", Token(refresh_token="alive"))
    assert ask(pool, "a") == "new"


def test_a_sign_in_with_the_same_refresh_token_is_tried(service, endpoint):
    service.connect("a", Token(refresh_token="r"))
    endpoint.refuses("r")
    pool = service.pool(maxsize=1)
    assert ask(pool, "a") == "SignInRequired"
    pool["b"]
    endpoint.errors.clear()
    pool["a"].sign_in(Token(refresh_token="r"))
    assert ask(pool, "a") == "new"


def test_disconnecting_forgets_what_was_refused(service, endpoint):
    service.connect("a", Token(refresh_token="r"))
    endpoint.refuses("r")
    pool = service.pool(maxsize=1)
    assert ask(pool, "a") == "SignInRequired"
    del pool["a"]
    service.connect("a", Token(refresh_token="r"))
    endpoint.errors.clear()
    assert ask(pool, "a") == "new"


def test_four_times_maxsize_refusals_are_remembered_and_the_least_recent_ones_leave(service, endpoint):
    endpoint.refuses("dead")
    users = [f"user-{number}" for number in range(9)]
    for user in users:
        service.connect(user, Token(refresh_token="dead"))
    pool = service.pool(maxsize=2)
    for user in users:
        assert ask(pool, user) == "SignInRequired"
    assert endpoint.asked["dead"] == 9
    for user in users[1:]:
        assert ask(pool, user) == "SignInRequired"
    assert endpoint.asked["dead"] == 9, "eight are remembered"
    assert ask(pool, users[0]) == "SignInRequired"
    assert endpoint.asked["dead"] == 10, "the ninth had left"
    assert ask(pool, users[2]) == "SignInRequired"
    assert endpoint.asked["dead"] == 10, "the least recent one left for it: users[1]"


def test_a_failure_of_the_storage_is_no_refusal_of_a_token(endpoint):
    storage_is_away = [True]

    class Away(MemoryStorage):
        def load(self) -> Token | None:
            if storage_is_away:
                raise OSError("away")
            return super().load()

    service = Service(endpoint, storages={"a": Away()})
    service.connect("a", Token(refresh_token="r"))
    pool = service.pool(maxsize=1)
    with pytest.raises(RefreshError):
        pool["a"].get_token()
    pool["b"]
    storage_is_away.clear()
    assert ask(pool, "a") == "new"


def when_the_refusal_is_looked_at_once_more(storage: Recording, action: Callable[[], object]) -> None:
    """Do `action` before the second load of the next refresh, which has read the refused token by then."""
    actions = iter([action])
    storage.before["load"] = lambda: storage.before.update(load=lambda: [one() for one in actions])


def test_a_remembered_refusal_does_not_keep_a_pool_from_a_storage_that_failed_once(endpoint):
    storage = Recording()
    service = Service(endpoint, storages={"a": storage})
    service.connect("a", Token(refresh_token="dead"))
    endpoint.refuses("dead")
    pool = service.pool(maxsize=1)
    assert ask(pool, "a") == "SignInRequired"
    pool["b"]

    def fail() -> None:
        raise StorageError("The storage is away.")

    when_the_refusal_is_looked_at_once_more(storage, fail)
    assert ask(pool, "a") == "StorageUnavailable"
    storage.inner.save(Token(refresh_token="alive"))  # a user signs in in another process
    service.clock.advance(1.1)
    assert ask(pool, "a") == "new"


def test_a_remembered_refusal_is_no_back_off_for_the_token_that_took_its_place(endpoint):
    storage = Recording()
    service = Service(endpoint, storages={"a": storage})
    service.connect("a", Token(refresh_token="dead"))
    endpoint.refuses("dead")
    endpoint.refuses("alive", lambda: RefreshError("not now", status_code=503))
    pool = service.pool(maxsize=1)
    assert ask(pool, "a") == "SignInRequired"
    pool["b"]
    when_the_refusal_is_looked_at_once_more(storage, lambda: storage.inner.save(Token(refresh_token="alive")))
    assert ask(pool, "a") == "RefreshError"
    endpoint.errors.clear()
    service.clock.advance(1.1)
    assert ask(pool, "a") == "new"


def everything_held_by(thing: object) -> list[object]:
    """Return all objects that `thing` keeps alive, except modules, classes and functions."""
    seen: dict[int, object] = {}
    found = [thing]
    while found:
        one = found.pop()
        if id(one) in seen or isinstance(one, type) or type(one).__name__ in ("module", "function", "builtin"):
            continue
        seen[id(one)] = one
        found += gc.get_referents(one)
    return list(seen.values())


def test_guarantee_11_a_remembered_refusal_holds_neither_the_refresh_token_nor_the_frames_of_its_error():
    secret, made = "refresh-token-0451", []

    def refuse(token: Token) -> Token:
        raise SignInRequired("dead") from ValueError(secret)

    def make(user: str) -> Reauth:
        made.append(user)
        return Reauth(refuse, token=None if made.count(user) > 1 else Token(refresh_token=f"{secret} of {user}"))

    pool = ReauthPool(make, maxsize=1)
    ask(pool, "a")
    for user in "bcb":
        pool[user]
    held = everything_held_by(pool)
    assert any(isinstance(one, SignInRequired) for one in held)
    assert not [one for one in held if isinstance(one, str) and secret in one]
    assert not [one for one in held if type(one).__name__ in ("frame", "traceback")]


def test_a_pool_of_another_clock_counts_by_that_clock(endpoint):
    clock = ManualClock()
    pool = ReauthPool(lambda user: Reauth(endpoint, token=Token(refresh_token="r"), clock=clock), maxsize=1)
    endpoint.refuses("r", lambda: RefreshError("not now", retry_after=10.0))
    ask(pool, "a")
    pool["b"]
    clock.advance(10.1)
    endpoint.errors.clear()
    assert ask(pool, "a") == "new"


def test_guarantee_6_an_api_that_refuses_fresh_tokens_costs_no_token_request_for_each_new_object(
    server, clock, library
):
    site = library.at(server)
    service = Service(site.function, library.Reauth, clock)
    for user in "ab":
        service.connect(user, server.issue())
    pool = service.pool(maxsize=1)
    with site.client() as client:
        for _ in range(20):
            server.api.fail_always(faults.reply(401))
            assert client.get("/me", auth=pool["a"]).status_code == 401
            server.api.heal()
            assert client.get("/me", auth=pool["b"]).status_code == 200
    assert service.made["a"] == 20
    assert server.token_requests == 1


def test_guarantee_6_a_sign_in_ends_what_the_api_has_refused_to_the_user_before(server, clock, library):
    site = library.at(server)
    service = Service(site.function, library.Reauth, clock)
    service.connect("a", server.issue())
    pool = service.pool(maxsize=1)
    server.api.fail_always(faults.reply(401))
    with site.client() as client:
        assert client.get("/me", auth=pool["a"]).status_code == 401
        pool["b"]
        pool["a"].sign_in(server.issue())
        pool["b"]
        assert client.get("/me", auth=pool["a"]).status_code == 401
    assert server.token_requests == 2
