"""Tests of `sign_out(revoke=True)`: the token is forgotten here, whatever the server answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from httpx_reauth import (
    Action,
    AuthState,
    Reauth,
    RefreshError,
    RevokeFailed,
    SignedOut,
    SignInRequired,
    StorageError,
    Token,
    TokenStore,
)
from httpx_reauth.oauth import Grant, Issuer, RefreshTokenGrant
from httpx_reauth.storage import FileStorage, MemoryStorage
from httpx_reauth.testing import AuthorizationServer, faults

FIRST = Token("a1", refresh_token="r1", expires_in=3600)
EXPIRED = Token("a1", refresh_token="r1", expires_in=0)


class Rotating(Grant):
    """A grant that rotates, in memory; it can be held up, and fails to order.

    Attributes:
        revoked: what it revoked, in this order.
        asking: set once it is asked for a token.
        may_answer: it answers once this is set.
    """

    def __init__(self) -> None:
        self.count = 1
        self.revoked: list[str] = []
        self.asking, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()
        self.fails: BaseException | None = None
        self.on_revoke: Callable[[], object] = lambda: None

    def flow(self, token: Token, /) -> Generator[Any, Any, Token]:
        raise NotImplementedError  # it is never driven
        yield

    def __call__(self, token: Token, /) -> Token:
        if not token.refresh_token:
            raise SignInRequired("Nobody is signed in.")
        self.asking.set()
        assert self.may_answer.wait(10)
        self.count += 1
        return Token(f"a{self.count}", refresh_token=f"r{self.count}", expires_in=3600)

    def revoke(self, token: Token) -> None:
        self.on_revoke()
        if self.fails is not None:
            raise self.fails
        self.revoked.append(token.refresh_token or token.access_token)


@pytest.fixture
def grant() -> Rotating:
    return Rotating()


def listen(store: TokenStore) -> list[Action]:
    heard: list[Action] = []

    def listener(_: AuthState, action: Action) -> None:
        heard.append(action)

    store.subscribe(listener)
    return heard


def start_refresh(auth: Reauth, grant: Rotating) -> threading.Thread:
    """A thread that waits for a refresh, whose grant has been asked and does not answer yet."""

    def wait() -> None:
        with pytest.raises(SignInRequired):
            auth.get_token(rejected=auth.token)

    grant.may_answer.clear()
    thread = threading.Thread(target=wait)
    thread.start()
    assert grant.asking.wait(10)
    return thread


def waits_for(thread: threading.Thread) -> None:
    thread.join(10)
    assert not thread.is_alive()


def test_the_refresh_token_is_revoked_and_forgotten(grant):
    auth = Reauth(grant, token=FIRST)
    auth.sign_out(revoke=True)
    assert auth.token is None
    assert grant.revoked == ["r1"]


async def test_the_same_for_async_code(grant, anyio_backend):
    auth = Reauth(grant, token=FIRST)
    await auth.asign_out(revoke=True)
    assert (auth.token, grant.revoked) == (None, ["r1"])


def test_without_a_refresh_token_it_is_the_access_token(grant):
    Reauth(grant, token=Token("a1", expires_in=3600)).sign_out(revoke=True)
    assert grant.revoked == ["a1"]


def test_where_nobody_is_signed_in_nothing_is_revoked(grant):
    Reauth(grant).sign_out(revoke=True)
    Reauth(grant, storage=MemoryStorage()).sign_out(revoke=True)
    assert grant.revoked == []


def test_a_plain_sign_out_revokes_nothing(grant):
    Reauth(grant, token=FIRST).sign_out()
    assert grant.revoked == []


def test_a_plain_function_cannot_revoke_and_nobody_is_signed_out():
    auth = Reauth(lambda token: token, token=FIRST)
    with pytest.raises(TypeError, match="revoke"):
        auth.sign_out(revoke=True)
    with pytest.raises(TypeError, match="revoke"):
        anyio.run(lambda: auth.asign_out(revoke=True))
    assert auth.token is not None


@pytest.mark.parametrize("error", [RefreshError("The server is away."), ValueError("r1 is no good")])
def test_where_the_server_does_not_revoke_it_the_token_goes_all_the_same_and_listeners_and_the_log_hear_of_it(
    grant, error, caplog
):
    grant.fails = error
    auth = Reauth(grant, token=FIRST)
    heard = listen(auth.store)
    with caplog.at_level(logging.WARNING, "httpx_reauth"):
        auth.sign_out(revoke=True)
    assert auth.token is None
    assert [type(action) for action in heard] == [SignedOut, RevokeFailed]
    assert auth.store.state.status == "idle"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "r1" not in caplog.text
    assert "r1" not in repr(heard)


def test_a_refresh_that_it_supersedes_revokes_what_it_brings(grant):
    auth = Reauth(grant, token=EXPIRED)
    waiting = start_refresh(auth, grant)
    auth.sign_out(revoke=True)
    waits_for(waiting)
    assert grant.revoked == ["r1"]
    grant.may_answer.set()
    auth.close()
    assert grant.revoked == ["r1", "r2"]
    assert auth.token is None


def test_a_refresh_that_a_plain_sign_out_supersedes_revokes_nothing(grant):
    auth = Reauth(grant, token=EXPIRED)
    start_refresh(auth, grant)
    auth.sign_out()
    auth.sign_out(revoke=True)  # of a session in which nobody is signed in
    grant.may_answer.set()
    auth.close()
    assert grant.revoked == []


# With a storage


def test_what_another_process_has_rotated_is_what_is_revoked(grant, tmp_path):
    path = tmp_path / "token.json"
    auth, other = (Reauth(grant, storage=FileStorage(path)) for _ in range(2))
    auth.sign_in(FIRST)
    other.get_token(rejected=other.get_token())
    auth.sign_out(revoke=True)
    assert grant.revoked == ["r2"]
    assert FileStorage(path).load() is None
    with pytest.raises(SignInRequired):
        other.get_token(rejected=other.token)


def test_a_process_that_has_not_read_the_storage_yet_revokes_what_is_in_it(grant):
    storage = MemoryStorage()
    storage.save(FIRST)
    Reauth(grant, storage=storage, token=Token("seed", refresh_token="seed")).sign_out(revoke=True)
    assert grant.revoked == ["r1"]
    assert storage.load() is None


def test_it_is_revoked_under_the_storages_lock_after_the_storage_was_cleared(grant):
    storage = MemoryStorage()
    auth = Reauth(grant, storage=storage)
    auth.sign_in(FIRST)
    seen: list[object] = []
    grant.on_revoke = lambda: seen.extend([storage.try_lock(1.0), storage.load()])
    auth.sign_out(revoke=True)
    assert seen == [None, None]


def test_a_refresh_that_holds_the_lock_is_waited_for_and_what_it_rotated_is_revoked(grant):
    class Contended(MemoryStorage):
        def try_lock(self, lease: float) -> Any:
            lock = super().try_lock(lease)
            if lock is None:  # the sign-out wants it
                grant.may_answer.set()
            return lock

    storage = Contended()
    auth = Reauth(grant, storage=storage)
    auth.sign_in(FIRST)
    start_refresh(auth, grant)
    auth.sign_out(revoke=True)
    auth.close()
    assert set(grant.revoked) == {"r1", "r2"}
    assert (auth.token, storage.load()) == (None, None)


def test_a_token_that_could_not_be_saved_is_revoked_with_the_one_that_is_stored(grant):
    class Full(MemoryStorage):
        is_full = False

        def save(self, token: Token) -> None:
            if self.is_full:
                raise StorageError("The disk is full.")
            super().save(token)

    storage = Full()
    auth = Reauth(grant, storage=storage)
    auth.sign_in(FIRST)
    storage.is_full = True
    auth.get_token(rejected=auth.token)
    auth.sign_out(revoke=True)
    assert grant.revoked == ["r2", "r1"]


def test_somebody_who_signs_in_meanwhile_is_not_revoked(grant):
    storage = MemoryStorage()
    auth = Reauth(grant, storage=storage)
    auth.sign_in(FIRST)
    lock = storage.try_lock(10.0)
    assert lock is not None
    with lock:
        leaving = threading.Thread(target=lambda: auth.sign_out(revoke=True))
        leaving.start()
        while auth.token is not None:
            leaving.join(0.001)
        arriving = threading.Thread(target=lambda: auth.sign_in(Token("b1", refresh_token="other")))
        arriving.start()
        while auth.token is None:
            arriving.join(0.001)
    waits_for(leaving)
    waits_for(arriving)
    assert grant.revoked == ["r1"]
    held = storage.load()
    assert held is not None
    assert held.refresh_token == "other"


def test_where_the_storage_is_away_memorys_token_is_revoked_and_the_error_is_the_storages(grant):
    class Away(MemoryStorage):
        is_away = False

        def try_lock(self, lease: float) -> Any:
            if self.is_away:
                raise StorageError("The storage is away.")
            return super().try_lock(lease)

    storage = Away()
    auth = Reauth(grant, storage=storage)
    auth.sign_in(FIRST)
    storage.is_away = True
    with pytest.raises(StorageError):
        auth.sign_out(revoke=True)
    assert (auth.token, grant.revoked) == (None, ["r1"])
    storage.is_away = False
    auth.close()
    assert storage.load() is None


def test_a_damaged_file_is_moved_aside_and_memorys_token_is_revoked(grant, tmp_path):
    path = tmp_path / "token.json"
    auth = Reauth(grant, storage=FileStorage(path))
    auth.sign_in(FIRST)
    path.write_text("{")
    auth.sign_out(revoke=True)
    assert grant.revoked == ["r1"]
    assert FileStorage(path).load() is None


def test_a_failure_of_the_revocation_is_none_of_the_sign_outs(grant):
    storage = MemoryStorage()
    auth = Reauth(grant, storage=storage)
    auth.sign_in(FIRST)
    grant.fails = RefreshError("The server is away.")
    heard = listen(auth.store)
    auth.sign_out(revoke=True)
    assert [type(action) for action in heard] == [SignedOut, RevokeFailed]
    assert storage.load() is None


def test_a_listener_may_sign_out_and_revoke_without_waiting_for_itself(grant):
    auth = Reauth(grant, token=EXPIRED, storage=MemoryStorage())
    auth.store.subscribe(lambda state, _: auth.sign_out(revoke=True) if state.status == "fulfilled" else None)
    with suppress(SignInRequired):  # it may have the token before the listener hears of that
        auth.get_token()
    auth.close()
    assert grant.revoked == ["r2"]
    assert auth.token is None


@pytest.mark.parametrize("how", ["issuer", "revocation_url"])
def test_a_grant_revokes_at_its_server(how):
    with AuthorizationServer(clients={"app": "secret"}) as server, server.serve() as url:
        where: dict[str, Any] = {"revocation_url": f"{url}/revoke"} if how == "revocation_url" else {}
        place = Issuer(url) if how == "issuer" else f"{url}/token"
        token = server.issue(client_id="app")
        auth = Reauth(RefreshTokenGrant(place, "app", "secret", **where), token=token)
        auth.sign_out(revoke=True)
        assert (server.tokens_revoked, auth.token) == (1, None)
        assert not server.is_good(token.refresh_token or "")


@pytest.mark.parametrize("endpoint", ["metadata_endpoint", "revocation_endpoint"])
def test_a_server_that_is_away_is_not_said_to_be_asked_again(endpoint):
    with AuthorizationServer(clients={"app": None}) as server, server.serve() as url:
        auth = Reauth(RefreshTokenGrant(Issuer(url), "app", timeout=0.5), token=server.issue(client_id="app"))
        getattr(server, endpoint).fail_always(faults.dropped())
        heard = listen(auth.store)
        auth.sign_out(revoke=True)
    failed = heard[-1]
    assert isinstance(failed, RevokeFailed)
    assert str(failed.error).endswith("The token may be good until its end.")
    assert "back-off" not in str(failed.error)


def test_a_grant_that_knows_no_place_to_revoke_at_says_so():
    auth = Reauth(RefreshTokenGrant("https://id.example.com/token", "app"), token=FIRST)
    with pytest.raises(TypeError, match="revocation_url"):
        auth.sign_out(revoke=True)
    assert auth.token is not None
