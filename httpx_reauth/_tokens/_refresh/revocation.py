"""Sign out at the server, too: `sign_out(revoke=True)` revokes the token (RFC 7009).

1. The token is forgotten first, for every request of this process. It stays forgotten even if a later step fails.
2. Under the storage's lock, the storage is read once more: another process may have rotated the refresh token. The
   stored token is revoked. If memory has a token that could not be saved, both tokens are revoked.
3. The storage is cleared, then the tokens are revoked at the server, then the lock is released.
4. A refresh under way runs to its end, since its token request may already have been sent. Then this refresh revokes
   its new token.
5. A failure at the server is reported by a `RevokeFailed` and a log line. No error is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from httpx_reauth._errors import ReauthError, RefreshError, drop_frames
from httpx_reauth._state.actions import RevokeFailed
from httpx_reauth._state.adoption import Adopt
from httpx_reauth._state.state import State
from httpx_reauth._state.store import TokenStore, log_prefix
from httpx_reauth._token import Token
from httpx_reauth._tokens._refresh.loops import Stopped
from httpx_reauth._tokens._refresh.sync import StorageJob, report_unsaved, start_job, sync_of, write_stopped
from httpx_reauth._tokens._refresh.worker import Call, Steps

_log = logging.getLogger("httpx_reauth")

Revoke: TypeAlias = Callable[[Token], object]


def start_revoking_sign_out(
    store: TokenStore, timeout: float, revoke: Revoke, forgot: State, package: str | None
) -> StorageJob:
    """Start the steps 2 to 5 in a worker; `forgot` is the state before the sign-out."""
    return start_job(store, timeout, package, lambda job: _steps(job, store, revoke, forgot))


def _steps(job: StorageJob, store: TokenStore, revoke: Revoke, forgot: State) -> Steps:
    sync = sync_of(store)
    tokens = [] if forgot.token is None else [forgot.token]
    try:
        lock = yield from sync.wait_for_lock(job.worker, None)
        if lock is None or isinstance(lock, Adopt):  # never: a job is not superseded and adopts nothing
            return
        try:
            tokens = yield from sync.tokens_to_revoke(forgot)
            job.error = yield from sync.write_pending(job.worker)
            job.is_written = job.error is None
            yield from revoke_each(store, revoke, tokens)
        finally:
            sync.release(lock)
    except (ReauthError, Stopped) as error:  # the lock could not be taken, or the write was stopped
        job.error = error if isinstance(error, ReauthError) else write_stopped()
        yield from revoke_each(store, revoke, tokens)
    if job.error is not None:
        report_unsaved(store, job.error, None)
    store._notify()


def revoke_each(store: TokenStore, revoke: Revoke, tokens: list[Token]) -> Steps:
    """Ask the server to revoke `tokens`; a failure is reported by `RevokeFailed` and a log line."""
    for token in tokens:
        try:
            yield Call(revoke, (token,))
        except Stopped:
            _report(store, RefreshError("The revocation was stopped; nobody knows whether the server got the request."))
        except Exception as error:  # noqa: BLE001 - any failure: the token is still forgotten here
            known = error if isinstance(error, ReauthError) else RefreshError(f"It raised {type(error).__name__}.")
            if known is not error:
                known.__cause__ = error
            _report(store, known)
        else:
            _log.info("%sRevoked the token that was signed out.", log_prefix(store))


def _report(store: TokenStore, error: ReauthError) -> None:
    drop_frames(error)
    store._apply(RevokeFailed(error))
    _log.warning("%sSigned out here, but the token was not revoked at the server: %s", log_prefix(store), error)
