"""Watch the store: a live status line for people, structured logs for machines, and no secret in both.

A listener gets every action with the state after it, in order. It runs on the thread of the refresh, so it should be
fast. The `repr` of actions and states hides secrets. Still, this program logs only selected fields. The library's own
lines (logger `httpx_reauth`) use the same handler.

Run it: `python examples/observing.py`. It starts a server on loopback, makes it fail, and repairs it. In a terminal,
the status is one line that changes in place. Try `python examples/observing.py 2>/dev/null`, and then `>/dev/null`.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from typing import TextIO

import httpx

from httpx_reauth import (
    AuthState,
    Reauth,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SignInRequired,
    Token,
)
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.testing import AuthorizationServer, ManualClock, faults


def status(state: AuthState) -> str:
    """Return the state in a few words. Everything comes from the snapshot that a listener gets."""
    if isinstance(state.error, SignInRequired):
        return "sign in again"
    if state.status == "pending":
        return "renewing ..."
    if state.status == "rejected":
        return f"not renewed: {type(state.error).__name__}"
    return "signed in" if state.token and state.token.access_token else "signed out"


class StatusLine:
    """A listener that shows the status: in a terminal one line in place, otherwise a line for each change."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.shown = ""

    def __call__(self, state: AuthState, _: object) -> None:
        """Show the new status. The store calls this."""
        now = status(state)
        if now != self.shown:
            self.shown = now
            self.file.write(f"\r{now:<40}" if self.file.isatty() else f"{now}\n")
            self.file.flush()


def log_events(_: AuthState, action: object) -> None:
    """A listener that logs each action with its fields: counts and times, no token."""
    fields: dict[str, object] = {}
    match action:
        case RefreshPending():
            fields = {"reason": action.reason}
        case RefreshFulfilled():
            life = action.token.expires_in
            fields = {"reason": action.reason, "adopted": action.adopted, "lifetime": life, "seconds": action.elapsed}
        case RefreshRejected():
            error = action.error
            fields = {"reason": action.reason, "error": type(error).__name__, "code": error.error}
            if isinstance(error, RefreshError):
                fields |= {"http_status": error.status_code, "retry_after": error.retry_after}
        case _:
            pass  # SaveFailed, SignedIn, SignedOut: the name is enough
    level = logging.WARNING if isinstance(action, RefreshRejected) else logging.INFO
    logging.getLogger("my_app.auth").log(level, type(action).__name__, extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """Format a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Numbers have three decimals."""
        fields: dict[str, object] = {"level": record.levelname, "logger": record.name, "event": record.getMessage()}
        fields |= getattr(record, "fields", {})
        return json.dumps({key: round(one, 3) if isinstance(one, float) else one for key, one in fields.items()})


def main() -> None:
    """Renew a token, fail to renew it, renew it again, and then need a new sign-in."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)

    clock = ManualClock()  # so that the program does not wait for an hour
    server = AuthorizationServer(clock=clock, lifetime=3600)
    with server.serve() as url:
        token = Token(refresh_token=server.issue().refresh_token)
        auth = Reauth(RefreshTokenGrant(f"{url}/token", "my-app"), token=token, clock=clock, origins=[url])
        auth.store.subscribe(StatusLine(sys.stdout))
        auth.store.subscribe(log_events)
        with auth, httpx.Client(base_url=url, auth=auth) as client:
            client.get("/me")
            clock.advance(3600)
            server.token_endpoint.fail(faults.reply(500))
            with suppress(httpx.TransportError):  # a RefreshError is a TransportError
                client.get("/me")
            clock.advance(1)  # the back-off has passed
            client.get("/me")
            clock.advance(3600)
            server.revoke_refresh_tokens()
            with suppress(SignInRequired):
                client.get("/me")
        if sys.stdout.isatty():
            print()


if __name__ == "__main__":
    main()
