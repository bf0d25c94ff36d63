"""Tokens for whoever wants one, without a request: get one, sign in, sign out, close."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from httpx_reauth._state.store import TokenStore
from httpx_reauth._token import Discreet, Token
from httpx_reauth._tokens import errands
from httpx_reauth._tokens.manager import Refresher
from httpx_reauth._tokens.wait import Plan

if TYPE_CHECKING:
    from typing_extensions import Self

_T = TypeVar("_T")


class TokenSource(Discreet):
    """A source of tokens.

    Attributes:
        store: the `TokenStore` that holds the token: read `store.state`, or `store.subscribe(listener)`.
    """

    __slots__ = ("_refresher", "store")

    store: TokenStore
    _refresher: Refresher

    def get_token(self, rejected: Token | None = None) -> Token:
        """A usable token, renewed first if need be: for a websocket, gRPC, another client.

        Blocks; at most for the refresh timeout.

        Args:
            rejected: the token that a server refused. If it still is the current one, it is renewed; so
                `get_token(rejected=auth.store.state.token)` forces a renewal, at each call: where a server might go
                on refusing, let a loop that connects again pause in between.

        Raises:
            RefreshError: there is no usable token and none can be had now; a later attempt may succeed.
            SignInRequired: there is none, and nothing but a sign-in helps.
        """
        plan = self._refresher.token(is_async=False, rejected=self._if_current(rejected))
        return _wait_for(plan)

    async def aget_token(self, rejected: Token | None = None) -> Token:
        """`get_token` for async code, on asyncio and trio: waits without blocking the event loop."""
        plan = self._refresher.token(is_async=True, rejected=self._if_current(rejected))
        return await _async_wait_for(plan)

    def sign_in(self, token: Token) -> None:
        """Replace the token, in the storage as well: it counts from now on. Overtakes a refresh under way.

        If it cannot be saved, it is kept in memory, told (`SaveFailed`), and saved at the next chance.

        Args:
            token: the new one. One with a refresh token only (`Token(refresh_token=...)`) is renewed at first use.
        """
        _wait_for(errands.sign_in(self._refresher, token, is_async=False))

    def sign_out(self) -> None:
        """Forget the token, in the storage as well. Whoever waits for a refresh under way gets `SignInRequired`.

        Raises:
            StorageError: the storage cannot be cleared; here the token is forgotten all the same.
            RefreshError: nor could its lock be taken.
        """
        _wait_for(errands.sign_out(self._refresher, is_async=False))

    async def asign_in(self, token: Token) -> None:
        """`sign_in` for async code."""
        await _async_wait_for(errands.sign_in(self._refresher, token, is_async=True))

    async def asign_out(self) -> None:
        """`sign_out` for async code."""
        await _async_wait_for(errands.sign_out(self._refresher, is_async=True))

    def close(self) -> None:
        """Wait for a refresh under way, without cancelling it and whatever comes of it; at most the refresh timeout.

        Afterwards the object works as before.
        """
        self._drop_alarm()
        _wait_for(errands.settle(self._refresher, is_async=False))

    async def aclose(self) -> None:
        """`close` for async code. Leave by it: a coroutine refresh lives only as long as its event loop."""
        self._drop_alarm()
        await _async_wait_for(errands.settle(self._refresher, is_async=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store.state!r})"

    def _drop_alarm(self) -> None:
        """After a close, no refresh starts that no request has asked for: its event loop may end at any time."""

    def _if_current(self, rejected: Token | None) -> Token | None:
        current = self.store.state.token  # perhaps with times that `rejected` has not
        is_it = rejected is not None and current is not None and rejected.access_token == current.access_token
        return current if is_it else None


def _wait_for(plan: Plan[_T]) -> _T:
    while True:
        try:
            step = next(plan)
        except StopIteration as stop:
            return cast("_T", stop.value)
        step.wait()


async def _async_wait_for(plan: Plan[_T]) -> _T:
    while True:
        try:
            step = next(plan)
        except StopIteration as stop:
            return cast("_T", stop.value)
        await step.async_wait()
