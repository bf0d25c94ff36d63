"""Tokens without a request: get one, renew it, sign in, sign out, close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from httpx_reauth._state.arguments import check_token
from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Token, Unpicklable
from httpx_reauth._tokens import sessions
from httpx_reauth._tokens.manager import TokenManager
from httpx_reauth._tokens.steps import arun_steps, run_steps

if TYPE_CHECKING:
    from typing_extensions import Self


class TokenSource(Unpicklable):
    """A source of tokens.

    Attributes:
        store: the `TokenStore` that holds the token: read `store.state`, or `store.subscribe(listener)`.
    """

    __slots__ = ("_manager", "store")

    store: TokenStore
    _manager: TokenManager

    @property
    def token(self) -> Token | None:
        """The current token, or None if there is none. It may have expired; `get_token` gives a usable one."""
        return self.store._state.token

    def get_token(self, rejected: Token | None = None) -> Token:
        """A usable token, renewed first if need be: for a websocket, gRPC, another client.

        Blocks; at most for the refresh timeout.

        Args:
            rejected: the token that a server refused. If it still is the current one, it is renewed, at each call:
                where a server might go on refusing, let a loop that connects again pause in between.

        Raises:
            RefreshError: there is no usable token and none can be had now; a later attempt may succeed.
            SignInRequired: there is none, and nothing but a sign-in helps.
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
        """A new token, though the current one may still be good: after a change of roles, say.

        Blocks, at most for the refresh timeout. Calls at the same time share one refresh, and so does one that is under
        way. What another process has put into the storage meanwhile counts as new.

        Raises:
            RefreshError: it could not be renewed now, or failed a moment ago. The current token stays in use.
            SignInRequired: nothing but a sign-in helps.
        """
        token: Token = run_steps(self._manager.renewed(is_async=False))
        return token

    async def arenew(self) -> Token:
        """`renew` for async code: waits without blocking the event loop."""
        token: Token = await arun_steps(self._manager.renewed(is_async=True))
        return token

    def sign_in(self, token: Token) -> None:
        """Replace the token, in the storage as well: it counts from now on. It supersedes a refresh under way.

        Args:
            token: the new one. One with a refresh token only (`Token(refresh_token=...)`) is renewed at first use.

        Raises:
            StorageError: it could not be saved. It counts in memory, and is saved at the next request or `close`.
                (Inside a refresh or a listener, which must not wait, there is a `SaveFailed` instead.)
            TypeError: it is no `Token`.
        """
        _check_signed_in(token, "sign_in(...)")
        run_steps(sessions.sign_in(self._manager, token, is_async=False))

    def sign_out(self, *, revoke: bool = False) -> None:
        """Forget the token, in the storage as well. A call that waits for a refresh gets `SignInRequired`.

        Args:
            revoke: also let the server revoke it: the refresh token, or the access token if there is no other (RFC
                7009). It is forgotten here whatever comes of that; a failure is a `RevokeFailed` for the listeners and
                a line in the log. A refresh under way revokes what it brings.

        Raises:
            StorageError: the storage cannot be cleared; here the token is forgotten all the same.
            RefreshError: nor could its lock be taken.
            TypeError: `revoke`, and the refresh is a function, or a grant that knows neither an `Issuer` nor a
                `revocation_url`; nobody is signed out.
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
        """Wait for a refresh under way, at most for the refresh timeout. It is not cancelled.

        Whatever comes of it, nothing is raised. Afterwards the object works as before.
        """
        run_steps(sessions.close(self._manager, is_async=False))

    async def aclose(self) -> None:
        """`close` for async code. Leave by it: a coroutine refresh lives only as long as its event loop."""
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
        """It names the package, since it stands in the error of a client that takes the `Reauth` of another one."""
        cls, name = type(self), self.store._name
        of_package = next(one for one in cls.__mro__ if one.__module__.partition(".")[0] == "httpx_reauth")
        shown = [] if cls is of_package else [f"{of_package.__module__}.{of_package.__qualname__}"]
        shown += [] if name is None else [f"name={name!a}"]
        return f"{cls.__module__}.{cls.__qualname__}({', '.join([*shown, repr(self.store.state)])})"

    def _if_current(self, rejected: Token | None) -> Token | None:
        current = self.store._state.token  # perhaps with times that `rejected` has not
        is_it = rejected is not None and current is not None and rejected.access_token == current.access_token
        return current if is_it else None


def _check_signed_in(token: object, write: str) -> None:
    if token is None:
        raise TypeError("sign_in takes a Token, not None. To forget the token, call sign_out() or await asign_out().")
    check_token("The token of sign_in", token, write)
