"""Sign in, sign out, close: the plans of what changes or ends a session."""

from __future__ import annotations

from httpx_reauth._errors import ReauthError, StorageError, own_copy
from httpx_reauth._state.actions import SignedIn, SignedOut
from httpx_reauth._token import Token
from httpx_reauth._tokens.manager import Plan, TokenManager, has_workers, wait_for


def sign_in(manager: TokenManager, token: Token, *, is_async: bool) -> Plan[None]:
    """Replace the token, in the storage as well.

    Raises:
        StorageError: it could not be saved; it counts in memory.
    """
    manager.store._apply(SignedIn(token))
    manager.store._notify()
    error = yield from _write(manager, is_async=is_async)
    if error is not None:
        raise StorageError(
            f"Signed in for this process, but the token could not be saved: {error} It is tried again at the next "
            "request or close."
        ) from error


def sign_out(manager: TokenManager, *, is_async: bool) -> Plan[None]:
    """Forget the token, in the storage as well.

    Raises:
        StorageError, RefreshError: the storage still holds it.
    """
    manager.store._apply(SignedOut())
    manager.store._notify()
    error = yield from _write(manager, is_async=is_async)
    if error is not None:
        raise own_copy(error)


def close(manager: TokenManager, *, is_async: bool) -> Plan[None]:
    """Wait for all that is under way, however it ends; write what the storage does not hold yet."""
    store = manager.store
    if not has_workers(store) and not store._state.pending_write:
        return
    from httpx_reauth._tokens._refresh import start_storage_job, workers_of

    until = manager.clock.monotonic() + manager.timeout
    for worker in workers_of(store):
        yield from wait_for(worker, is_async=is_async, until=until)
    if store._state.pending_write:
        job = start_storage_job(store, manager.timeout, manager.package)
        if job is not None:
            yield from wait_for(job.worker, is_async=is_async, until=until)


def _write(manager: TokenManager, *, is_async: bool) -> Plan[ReauthError | None]:
    """Write what the storage does not hold yet, and wait for it; returns what went wrong."""
    store = manager.store
    if store._storage is None:
        return None
    from httpx_reauth._tokens._refresh import current_workers, start_storage_job

    job = start_storage_job(store, manager.timeout, manager.package)
    if job is None or current_workers():  # a refresh may hold the lock, so this must not wait: `SaveFailed` tells
        return None
    late = yield from wait_for(job.worker, is_async=is_async)
    return late or job.error
