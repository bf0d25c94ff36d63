"""Tests of a sign-out at the same time as other calls. In the end, the storage holds what the store says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from httpx_reauth import Reauth, RefreshError, SaveFailed, SignedIn, SignedOut, SignInRequired, StorageError, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import AuthorizationServer

OLD, NEW = Token("old", refresh_token="r0", expires_in=3600), Token("new", refresh_token="r1", expires_in=3600)


def never(token: Token) -> Token:
    if not token.refresh_token:
        raise SignInRequired("Nobody is signed in.")
    raise AssertionError("asked for the successor of what somebody has signed out")


class Fragile(MemoryStorage):
    """A storage that cannot be cleared while `broken` is true."""

    broken = False

    def clear(self) -> None:
        if self.broken:
            raise StorageError("The disk is read-only.")
        super().clear()


def signed_in(storage: MemoryStorage, **settings: Any) -> Reauth:
    auth = Reauth(never, storage=storage, **settings)
    auth.sign_in(OLD)
    return auth


def signs_out_in_vain(auth: Reauth, storage: Fragile) -> None:
    storage.broken = True
    with pytest.raises(StorageError, match="read-only"):
        auth.sign_out()
    assert storage.load() is not None
    storage.broken = False


def is_signed_out(auth: Reauth, storage: MemoryStorage) -> None:
    assert auth.store.state.token is None
    with pytest.raises(SignInRequired):
        auth.get_token()
    assert storage.load() is None


def is_signed_in(auth: Reauth, storage: MemoryStorage) -> None:
    held = storage.load()
    assert held is not None
    assert (auth.get_token().access_token, held.access_token) == ("new", "new")


def held_up_by_a_listener(auth: Reauth, action: type, function: Callable[[], object], meanwhile: Callable[[], object]):
    """Run `function` in a thread. Call `meanwhile` after `action` has changed the state, and before that is written."""
    reached, opened = threading.Event(), threading.Event()

    def hold(_: object, told: object) -> None:
        if isinstance(told, action):
            reached.set()
            assert opened.wait(60)

    unsubscribe = auth.store.subscribe(hold)
    thread = threading.Thread(target=function)
    thread.start()
    assert reached.wait(60)
    unsubscribe()
    meanwhile()
    opened.set()
    thread.join()


@pytest.mark.parametrize("by", ["the same object", "another object"])
def test_a_sign_out_that_is_written_late_does_not_undo_the_login_after_it(by: str):
    storage = MemoryStorage()
    auth = signed_in(storage)
    other = auth if by == "the same object" else Reauth(never, store=auth.store, storage=storage)
    held_up_by_a_listener(auth, SignedOut, auth.sign_out, lambda: other.sign_in(NEW))
    is_signed_in(auth, storage)
    is_signed_in(other, storage)


def test_a_sign_in_that_is_written_late_does_not_undo_the_sign_out_after_it():
    storage = MemoryStorage()
    auth = signed_in(storage)
    held_up_by_a_listener(auth, SignedIn, lambda: auth.sign_in(NEW), auth.sign_out)
    is_signed_out(auth, storage)


@pytest.mark.parametrize("is_read", [False, True])
def test_a_sign_out_that_is_dispatched_is_followed_by_the_storage(*, is_read: bool):
    storage = MemoryStorage()
    auth = signed_in(storage)
    if not is_read:
        auth = Reauth(never, store=auth.store, storage=storage)
    assert auth.store.dispatch(SignedOut())
    is_signed_out(auth, storage)


@pytest.mark.parametrize("way", ["a close", "a request"])
def test_a_storage_that_could_not_be_cleared_is_cleared_at_the_next_chance(way: str):
    storage = Fragile()
    auth = signed_in(storage)
    signs_out_in_vain(auth, storage)
    if way == "a close":
        auth.close()
        assert storage.load() is None
    is_signed_out(auth, storage)


def test_an_empty_object_that_has_never_read_its_storage_signs_out_what_that_holds():
    storage = MemoryStorage()
    signed_in(storage)
    auth = Reauth(never, storage=storage)
    auth.sign_out()
    is_signed_out(auth, storage)


def test_an_empty_object_whose_storage_could_not_be_cleared_clears_it_at_the_next_chance():
    storage = Fragile()
    signed_in(storage)
    auth = Reauth(never, storage=storage)
    signs_out_in_vain(auth, storage)
    auth.close()
    is_signed_out(auth, storage)


def test_a_request_that_must_clear_the_storage_first_and_cannot_fails_as_transient():
    storage = Fragile()
    auth = signed_in(storage)
    storage.broken = True
    with pytest.raises(StorageError):
        auth.sign_out()
    with pytest.raises(RefreshError, match="read-only") as caught:
        auth.get_token()
    assert isinstance(caught.value, StorageError)
    assert storage.load() is not None


def test_what_another_process_signs_in_after_both_have_signed_out_is_adopted():
    storage = MemoryStorage()
    auth = signed_in(storage)
    other = Reauth(never, store=auth.store, storage=storage)
    assert other.get_token().access_token == "old"
    auth.sign_out()
    Reauth(never, storage=storage).sign_in(NEW)
    is_signed_in(other, storage)


def test_a_sign_out_elsewhere_is_followed_and_clears_no_later_login():
    storage = MemoryStorage()
    auth = Reauth(lambda _: Token("renewed", expires_in=0), storage=storage)
    auth.sign_in(Token("old", refresh_token="r0", expires_in=0))
    storage.clear()
    with pytest.raises(SignInRequired):
        auth.get_token()
    Reauth(never, storage=storage).sign_in(NEW)
    is_signed_in(auth, storage)


def test_an_old_sign_out_of_another_session_clears_nothing_later():
    storage = Fragile()
    auth = signed_in(storage)
    signs_out_in_vain(auth, storage)
    auth.store.dispatch(SignedIn(OLD))
    assert auth.get_token().access_token == "old"
    auth.close()
    storage.clear()  # another process signs out, and then a user signs in there
    with pytest.raises(SignInRequired):
        auth.get_token(rejected=auth.store.state.token)
    Reauth(never, storage=storage).sign_in(NEW)
    is_signed_in(auth, storage)


@pytest.mark.parametrize("way", ["a first token", "a login without a storage"])
def test_whoever_comes_after_a_sign_out_that_the_storage_does_not_know_replaces_what_it_holds(way: str):
    storage = Fragile()
    auth = signed_in(storage)
    signs_out_in_vain(auth, storage)
    if way == "a first token":
        Reauth(never, store=auth.store, token=NEW)
    else:
        Reauth(lambda _: NEW, store=auth.store).get_token()
    assert auth.get_token().access_token == "new"
    auth.close()
    is_signed_in(auth, storage)


class Panic(BaseException):
    """What an extension raises that is not written in Python."""


@pytest.mark.parametrize("revoke", [False, True])
def test_a_sign_out_whose_storage_ends_its_thread_is_an_error_and_is_tried_again(*, revoke: bool):
    class Panicking(MemoryStorage):
        def clear(self) -> None:
            if failures:
                raise failures.pop()
            super().clear()

    failures: list[BaseException] = []
    storage, heard = Panicking(), []
    server = AuthorizationServer()
    client = httpx.Client(transport=server.transport(httpx))
    url = "https://id.test"
    grant = RefreshTokenGrant(f"{url}/token", "app", revocation_url=f"{url}/revoke", client=client)
    auth = Reauth(grant, storage=storage)
    auth.sign_in(server.issue())
    auth.store.subscribe(lambda _, action: heard.append(type(action)))
    failures.append(Panic())
    with pytest.raises(StorageError, match="stopped"):
        auth.sign_out(revoke=revoke)
    assert heard[-1] is SaveFailed
    auth.close()
    is_signed_out(auth, storage)
