"""The plans of `sign_in`, `sign_out` and `close`."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from httpx_reauth import _tokens
from httpx_reauth._errors import ReauthError, StorageError, copy_for_waiter
from httpx_reauth._state.actions import SignedIn, SignedOut
from httpx_reauth._state.store import LOCK, is_in_listener
from httpx_reauth._token import Token
from httpx_reauth._tokens.manager import Plan, TokenManager, has_workers, wait_for


def sign_in(manager: TokenManager, token: Token, *, is_async: bool) -> Plan[None]:
    """Replace the token, in the storage as well.

    Raises:
        StorageError: the token could not be saved. The new token still counts in memory.
    """
    manager.store._apply(SignedIn(token))
    manager.store._notify()
    error = yield from _write(manager, is_async=is_async)
    if error is not None:
        raise StorageError(
            f"Signed in for this process, but the token could not be saved: {error} It is tried again at the next "
            "request or close."
        ) from error


def sign_out(manager: TokenManager, *, revoke: bool, is_async: bool) -> Plan[None]:
    """Forget the token, in the storage as well; with `revoke`, also revoke it at the server.

    Raises:
        StorageError, RefreshError: the storage still has the token.
        TypeError: the refresh has no function that revokes a token.
    """
    if revoke:
        error = yield from _sign_out_and_revoke(manager, _revoke_of(manager.refresh), is_async=is_async)
    else:
        manager.store._apply(SignedOut())
        manager.store._notify()
        error = yield from _write(manager, is_async=is_async)
    if error is not None:
        raise copy_for_waiter(error)


def _sign_out_and_revoke(
    manager: TokenManager, revoke: Callable[[Token], object], *, is_async: bool
) -> Plan[ReauthError | None]:
    store = manager.store
    with LOCK:  # so no refresh can publish its token between these lines
        forgot = store._state
        if isinstance(forgot.flight, _tokens._refresh.Flight):
            forgot.flight.revoke = revoke
        store._apply(SignedOut())
    store._notify()
    if forgot.token is None and store._storage is None:
        return None
    job = _tokens._refresh.start_revoking_sign_out(store, manager.timeout, revoke, forgot, manager.package)
    if _must_not_wait():
        return None
    late = yield from wait_for(job.worker, is_async=is_async)
    if store._storage is None or job.is_written:
        return None
    return late or job.error


def _must_not_wait() -> bool:
    """Is the caller inside of a refresh, or a listener? Then `SaveFailed` reports an error.

    The refresh may have the storage's lock. A listener may run on the thread of the event loop that the refresh needs.
    """
    return bool(_tokens._refresh.current_workers()) or is_in_listener()


def _revoke_of(refresh: object) -> Callable[[Token], object]:
    """The function of the grant `refresh` that revokes a token.

    Raises:
        TypeError: `refresh` has none, or does not know the server's revocation endpoint.
    """
    revoke = getattr(refresh, "revoke", None)
    if not callable(revoke):
        raise TypeError(
            "sign_out(revoke=True) needs to know how: give the Reauth a grant of httpx_reauth.oauth with an Issuer or "
            "with revocation_url=..., in place of a function. Nobody was signed out."
        )
    if getattr(refresh, "can_revoke", True) is False:
        raise TypeError(
            f"sign_out(revoke=True) needs to know where: give the {type(refresh).__name__} an Issuer in place of its "
            "token URL, or revocation_url=... (RFC 7009). Nobody was signed out."
        )
    return cast("Callable[[Token], object]", revoke)


def close(manager: TokenManager, *, is_async: bool) -> Plan[None]:
    """Wait until all workers of the store have finished, whatever their results; then write the pending change."""
    store = manager.store
    if not has_workers(store) and not store._state.pending_write:
        return
    until = manager.clock.monotonic() + manager.timeout
    for worker in _tokens._refresh.workers_of(store):
        yield from wait_for(worker, is_async=is_async, until=until)
    if store._state.pending_write:
        job = _tokens._refresh.start_storage_job(store, manager.timeout, manager.package)
        if job is not None:
            yield from wait_for(job.worker, is_async=is_async, until=until)


def _write(manager: TokenManager, *, is_async: bool) -> Plan[ReauthError | None]:
    """Write the pending change to the storage, and wait for that; return the error, or None."""
    store = manager.store
    if store._storage is None:
        return None
    job = _tokens._refresh.start_storage_job(store, manager.timeout, manager.package)
    if job is None or _must_not_wait():
        return None
    late = yield from wait_for(job.worker, is_async=is_async)
    return late or job.error
