"""The part of a `Reauth` that needs no HTTP request: get a token, renew it, sign in, sign out, close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from httpx_reauth._state.actions import TokenRefused
from httpx_reauth._state.arguments import check_token
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Token, Unpicklable
from httpx_reauth._tokens import sessions
from httpx_reauth._tokens.manager import TokenManager
from httpx_reauth._tokens.steps import arun_steps, run_steps

if TYPE_CHECKING:
    from typing_extensions import Self


class TokenSource(Unpicklable):
    """Gets, renews and replaces a token.

    Attributes:
        store: the `TokenStore` with the token: read `store.state`, or call `store.subscribe(listener)`.
    """

    __slots__ = ("_manager", "store")

    store: TokenStore
    _manager: TokenManager

    @property
    def token(self) -> Token | None:
        """The current token, or None. The token may have expired; `get_token` returns a usable token."""
        return self.store._state.token

    def get_token(self, rejected: Token | None = None) -> Token:
        """A usable token, renewed first if necessary: for a websocket, gRPC or another client.

        Blocks, at most for the refresh timeout.

        Args:
            rejected: the token that a server refused. If it still is the current token, it is renewed, at every such
                call. So a loop that connects again should pause between its calls: the server may go on refusing.

        Raises:
            RefreshError: there is no usable token, and the refresh failed. A later call may succeed.
            SignInRequired: there is no usable token, and only a new sign-in helps.
        """
        if rejected is not None:
            check_token("rejected", rejected, "get_token(rejected=...)")
        token: Token = run_steps(self._manager.token(is_async=False, rejected=self._if_current(rejected)))
        return token

    async def aget_token(self, rejected: Token | None = None) -> Token:
        """`get_token` for async code, on asyncio and trio: waits without blocking the event loop."""
        if rejected is not None:
            check_token("rejected", rejected, "aget_token(rejected=...)")
        token: Token = await arun_steps(self._manager.token(is_async=True, rejected=self._if_current(rejected)))
        return token

    def renew(self) -> Token:
        """A new token, even if the current one is still usable: for example after the user got a new role.

        Blocks, at most for the refresh timeout. Calls at the same time share one refresh, and join a refresh under way.
        A token that another process has saved in the storage meanwhile counts as new.

        Raises:
            RefreshError: the refresh failed, or one failed just before and its back-off lasts. The current token stays
                in use.
            SignInRequired: only a new sign-in helps.
        """
        token: Token = run_steps(self._manager.renewed(is_async=False))
        return token

    async def arenew(self) -> Token:
        """`renew` for async code: waits without blocking the event loop."""
        token: Token = await arun_steps(self._manager.renewed(is_async=True))
        return token

    def sign_in(self, token: Token) -> None:
        """Replace the token, in the storage as well. The result of a refresh under way does not count.

        Args:
            token: the new token. A token with a refresh token only (`Token(refresh_token=...)`) is renewed at its first
                use.

        Raises:
            StorageError: the token could not be saved. The token counts in memory, and the next request or `close`
                saves it.
                (Inside a refresh or a listener, which must not wait, the listeners get a `SaveFailed` instead.)
            TypeError: `token` is not a `Token`.
        """
        _check_signed_in(token, "sign_in(...)")
        run_steps(sessions.sign_in(self._manager, token, is_async=False))

    def sign_out(self, *, revoke: bool = False) -> None:
        """Forget the token, in the storage as well. A call that waits for a refresh gets `SignInRequired`.

        Args:
            revoke: also ask the server to revoke the refresh token, or the access token if there is no refresh token
                (RFC 7009). If that fails, the token is still forgotten here: the listeners get a `RevokeFailed`,
                and the log has a line. A refresh under way revokes its new token.

        Raises:
            StorageError: the storage could not be cleared. The token is still forgotten in memory.
            RefreshError: the storage's lock could not be taken, or the refresh timeout has passed.
            TypeError: with `revoke`, the refresh is a function, or a grant with neither an `Issuer` nor a
                `revocation_url`. Nobody is signed out.
        """
        run_steps(sessions.sign_out(self._manager, revoke=revoke, is_async=False))

    async def asign_in(self, token: Token) -> None:
        """`sign_in` for async code."""
        _check_signed_in(token, "asign_in(...)")
        await arun_steps(sessions.sign_in(self._manager, token, is_async=True))

    async def asign_out(self, *, revoke: bool = False) -> None:
        """`sign_out` for async code."""
        await arun_steps(sessions.sign_out(self._manager, revoke=revoke, is_async=True))

    def close(self) -> None:
        """Wait for a refresh under way, at most for the refresh timeout. The refresh is not cancelled.

        A change that could not be saved so far is saved now. Errors are not raised. Afterwards the object works as
        before.
        """
        run_steps(sessions.close(self._manager, is_async=False))

    async def aclose(self) -> None:
        """`close` for async code. Await it before the event loop ends: a coroutine refresh stops with its loop."""
        await arun_steps(sessions.close(self._manager, is_async=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        """Shows the package, httpx or httpx2: a client of the other package quotes this `repr` in its error."""
        cls, name = type(self), self.store._name
        of_package = next(one for one in cls.__mro__ if one.__module__.partition(".")[0] == "httpx_reauth")
        shown = [] if cls is of_package else [f"{of_package.__module__}.{of_package.__qualname__}"]
        shown += [] if name is None else [f"name={name!a}"]
        return f"{cls.__module__}.{cls.__qualname__}({', '.join([*shown, repr(self.store.state)])})"

    def _if_current(self, rejected: Token | None) -> Token | None:
        current = self.store._state.token  # it may have times that `rejected` does not have
        if rejected is None or current is None or rejected.access_token != current.access_token:
            return None
        self.store._apply(TokenRefused(current))
        return current


def _check_signed_in(token: object, write: str) -> None:
    if token is None:
        raise TypeError("sign_in takes a Token, not None. To forget the token, call sign_out() or await asign_out().")
    check_token("The token of sign_in", token, write)
