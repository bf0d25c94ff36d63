"""The simulated server's data about its tokens and requests."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from httpx_reauth import Token
from httpx_reauth._tokens._refresh.flight import Flight
from httpx_reauth._tokens._refresh.loops import AsyncioLoop
from httpx_reauth._tokens._refresh.worker import Worker

from ._kernel import Home

if TYPE_CHECKING:
    from ._redis import Lease

_Message = TypeVar("_Message", httpx.Request, httpx.Response)

API, STRANGER = httpx.URL("https://api.test"), httpx.URL("https://stranger.test")
REQUESTS = {url: httpx.Request("POST", url, content=b"body") for url in (API, STRANGER)}
RESPONSES = {status: httpx.Response(status) for status in (200, 401)}
_JSON = httpx.Response(200, json={})


def json_response(fields: dict[str, Any]) -> httpx.Response:
    """`httpx.Response(200, json=fields)`."""
    content = dumps(fields).encode()
    response = another(_JSON, _content=content, stream=httpx.ByteStream(content))
    response.headers["Content-Length"] = str(len(content))
    return response


def another(message: _Message, **different: Any) -> _Message:
    """One like `message`, with headers of its own: to make it anew takes httpx as long as all that is done to it."""
    copy, headers = object.__new__(type(message)), object.__new__(httpx.Headers)
    headers.__dict__ = {**message.headers.__dict__, "_list": [*message.headers._list]}
    copy.__dict__ = {**message.__dict__, "headers": headers, "extensions": {}, **different}
    return copy


class Dropped(ConnectionError):
    """The connection broke."""


@dataclass
class Family:
    """What came of one sign-in."""

    number: int
    died: str = ""  # the reason, or ""


@dataclass
class Refresh:
    """A refresh token, as the server knows it."""

    family: Family
    successor: str = ""
    is_signed_in: bool = False  # somebody brought it by hand
    excuse: str = ""  # why it may come again although it was used: its answer has an unknown outcome
    spent_by: Ask | None = None


@dataclass
class Access:
    """An access token, as the server knows it."""

    family: Family
    begun: float  # when the request for it began
    ends: float
    refused: str = ""  # why the API has refused it
    revoked: bool = False


@dataclass(eq=False)
class Ask:
    """A token request under way."""

    home: Home
    key: object  # the refresh token that it spends, or the client that logs in
    begun: float  # in true time
    overdue: float  # when the library may stop it, on the monotonic clock of its machine
    worker: Worker
    flight: Flight
    is_login: bool
    is_stoppable: bool  # it is a coroutine
    lease: Lease | None = None  # under which it was made, until what came of it is saved under that lease
    is_given_up: bool = False  # nobody knows what will come of it: its loop stands still beyond its time
    spent: str = ""  # the refresh token that the server took
    is_answered: bool = False
    is_late: bool = False  # it was answered after its deadline

    @property
    def is_left_behind(self) -> bool:
        """Will its coroutine never go on, as its event loop was closed under it, without a cancellation?

        So `asyncio.run` does to a task that begins while it cancels the others at its end. (trio leaves none behind.)
        """
        loop = self.worker.loop
        return self.is_stoppable and isinstance(loop, AsyncioLoop) and loop.is_closed()

    @property
    def came_too_late(self) -> bool:
        """Came the answer when the library had given the coroutine up already, and said so?

        Its loop must have stood still beyond `refresh_timeout`, or the coroutine would have been stopped. Whether the
        answer still counts is seen later: it does not, if the flight failed with an unknown outcome and told no token.
        """
        return self.is_late and self.flight.outcome_unknown and not isinstance(self.flight.outcome, Token)

    @property
    def lost_its_lease(self) -> bool:
        """Did its process lose the lease of the storage, before it had saved what came of it?"""
        return self.lease is not None and self.lease.is_lost

    @property
    def counts_no_more(self) -> bool:
        """Is it a login that a sign-in or a sign-out has overtaken? Another one may begin then."""
        return self.is_login and self.flight is not self.worker.store._state.flight
