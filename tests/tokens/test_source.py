"""Tests of tokens without a request: get one, renew it, sign in, sign out, close.

Each runs in sync and in async code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from httpx_reauth import Reauth, RefreshError, RefreshFulfilled, RefreshPending, SignInRequired, Token
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import ManualClock


class Refresh:
    """A refresh that returns `new 1`, `new 2` ..., or raises the exception that the test sets."""

    def __init__(self) -> None:
        self.asked: list[Token] = []
        self.error: Exception | None = None

    def __call__(self, last: Token) -> Token:
        self.asked.append(last)
        if self.error is not None:
            raise self.error
        return Token(f"new {len(self.asked)}", expires_in=3600)


@pytest.fixture
def refresh() -> Refresh:
    return Refresh()


@pytest.fixture(params=["sync", "asyncio", "trio"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that calls a method by its sync name, or by its async name."""

    def call(auth: Reauth, name: str, *arguments: Any, **named: Any) -> Any:
        if request.param == "sync":
            return getattr(auth, name)(*arguments, **named)

        async def main() -> Any:
            return await getattr(auth, f"a{name}")(*arguments, **named)

        return anyio.run(main, backend=request.param)

    return call


@pytest.fixture
def auth(refresh: Refresh, clock: ManualClock) -> Reauth:
    return Reauth(refresh, token=Token("old", refresh_token="r", expires_in=3600), clock=clock)


def test_a_good_token_is_returned_without_a_refresh(auth: Reauth, refresh: Refresh, call: Any):
    assert call(auth, "get_token").access_token == "old"
    assert auth.token is not None
    assert auth.token.access_token == "old"
    assert refresh.asked == []


def test_there_is_no_current_token_before_the_first_and_after_a_sign_out(refresh: Refresh, call: Any):
    auth = Reauth(refresh)
    assert auth.token is None
    assert call(auth, "get_token") is auth.token
    call(auth, "sign_out")
    assert auth.token is None
    call(auth, "sign_in", Token("another"))
    assert auth.token == Token("another")


@pytest.mark.parametrize("rejected", [Token("old", expires_in=3600), Token("old"), Token("old", scope="read")])
def test_a_token_is_the_rejected_one_if_the_server_would_not_tell_them_apart(auth: Reauth, call: Any, rejected: Token):
    assert call(auth, "get_token", rejected=rejected).access_token == "new 1"
    assert call(auth, "get_token", rejected=rejected).access_token == "new 1"
    assert call(auth, "get_token", rejected=Token()).access_token == "new 1"


def test_a_forced_renewal_brings_another_token_each_time(auth: Reauth, refresh: Refresh, call: Any):
    assert call(auth, "renew").access_token == "new 1"
    assert call(auth, "get_token").access_token == "new 1"
    assert call(auth, "renew") is auth.token
    assert [last.access_token for last in refresh.asked] == ["old", "new 1"]
    assert refresh.asked[0].refresh_token == "r"


def test_a_forced_renewal_is_dispatched_as_any_other(auth: Reauth, call: Any):
    told: list[Any] = []
    auth.store.subscribe(lambda state, action: told.append(action))
    call(auth, "renew")
    assert [type(action) for action in told] == [RefreshPending, RefreshFulfilled]
    assert [action.reason for action in told] == ["expiring"] * 2


@pytest.mark.parametrize("token", [None, Token(refresh_token="r")])
def test_a_forced_renewal_where_there_is_no_access_token_asks_once(refresh: Refresh, call: Any, token: Token | None):
    auth = Reauth(refresh, token=token)
    assert call(auth, "renew").access_token == "new 1"
    assert len(refresh.asked) == 1


def test_a_forced_renewal_that_fails_raises_and_the_token_stays_in_use(
    auth: Reauth, refresh: Refresh, call: Any, clock: ManualClock
):
    refresh.error = RefreshError("down")
    for _ in range(2):  # the second call comes too early for another attempt
        with pytest.raises(RefreshError, match="down"):
            call(auth, "renew")
    assert len(refresh.asked) == 1
    assert call(auth, "get_token").access_token == "old"
    refresh.error = None
    clock.advance(0.5)
    assert call(auth, "renew").access_token == "new 2"


def test_a_forced_renewal_of_a_dead_refresh_token_says_to_sign_in_and_the_token_stays_in_use(
    auth: Reauth, refresh: Refresh, call: Any
):
    refresh.error = SignInRequired("dead")
    with pytest.raises(SignInRequired):
        call(auth, "renew")
    assert call(auth, "get_token").access_token == "old"


def test_a_forced_renewal_does_not_make_do_with_what_the_storage_holds(refresh: Refresh, call: Any, clock: ManualClock):
    storage = MemoryStorage()
    Reauth(refresh, storage=storage, clock=clock).get_token()
    auth = Reauth(refresh, storage=storage, clock=clock)  # this object has not read the storage yet
    assert call(auth, "renew").access_token == "new 2"
    assert call(auth, "renew").access_token == "new 3"
    stored = storage.load()
    assert stored is not None
    assert stored.access_token == "new 3"


def test_a_forced_renewal_with_a_first_token_for_an_empty_storage_asks_once(
    refresh: Refresh, call: Any, clock: ManualClock
):
    auth = Reauth(refresh, token=Token("old", expires_in=3600), storage=MemoryStorage(), clock=clock)
    assert call(auth, "renew").access_token == "new 1"
    assert [last.access_token for last in refresh.asked] == ["old"]


@pytest.mark.anyio
async def test_guarantee_1_forced_renewals_at_the_same_time_share_one_refresh(clock: ManualClock):
    async def refresh(last: Token) -> Token:
        asked.append(last)
        await gate.wait()
        return Token(f"new {len(asked)}", expires_in=3600)

    asked, got, gate = list[Token](), list[Token](), anyio.Event()
    async with Reauth(refresh, token=Token("old", expires_in=3600), clock=clock) as auth:

        async def renew() -> None:
            got.append(await auth.arenew())

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(renew)
            await anyio.wait_all_tasks_blocked()
            assert (await auth.aget_token()).access_token == "old"  # no other call waits for it
            gate.set()
    assert [token.access_token for token in got] == ["new 1"] * 20
    assert len(asked) == 1


def test_an_auth_object_whose_block_has_ended_has_no_running_refresh(refresh: Refresh):
    async def main() -> None:
        async with Reauth(refresh) as auth:
            assert (await auth.aget_token()).access_token == "new 1"

    anyio.run(main)
    with Reauth(refresh) as auth:
        assert auth.get_token().access_token == "new 2"


# --- its repr ---


def test_its_repr_names_the_package_and_its_name_and_no_secret(library: Any, refresh: Refresh):
    auth = library.Reauth(refresh, token=Token("secret"), name="user-42")
    class_name = {"httpx": "httpx_reauth.Reauth", "httpx2": "httpx_reauth.httpx2.Reauth"}[library.package.__name__]
    assert repr(auth).startswith(f"{class_name}(name='user-42', ")
    assert repr(auth.store.state) in repr(auth)
    assert "secret" not in repr(auth)
    assert repr(library.Reauth(refresh)).startswith(f"{class_name}(AuthState(")


def test_the_repr_of_a_subclass_names_both(library: Any, refresh: Refresh):
    class Ours(library.Reauth): ...

    class_name = {"httpx": "httpx_reauth.Reauth", "httpx2": "httpx_reauth.httpx2.Reauth"}[library.package.__name__]
    assert f"Ours({class_name}, " in repr(Ours(refresh))


def test_the_client_s_own_error_names_the_package_of_an_auth_object_for_the_other_one(refresh: Refresh):
    httpx, httpx2 = pytest.importorskip("httpx"), pytest.importorskip("httpx2")
    import httpx_reauth.httpx2

    for client, auth, class_name in (
        (httpx.Client, httpx_reauth.httpx2.Reauth(refresh), r"httpx_reauth\.httpx2\.Reauth"),
        (httpx2.Client, httpx_reauth.Reauth(refresh), r"httpx_reauth\.Reauth"),
    ):
        with pytest.raises(TypeError, match=class_name):
            client(auth=auth)
