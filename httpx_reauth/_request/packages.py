"""The part of requests and responses that this library uses: public API that httpx and httpx2 have in common.

Most of it is for type checkers only, since each protocol makes the import a tenth of a millisecond slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from httpx_reauth._errors import RefreshError

    class URL(Protocol):
        """A parsed URL, in the normal form of httpx and httpx2."""

        @property
        def scheme(self) -> str: ...
        @property
        def host(self) -> str: ...
        @property
        def raw_host(self) -> bytes: ...
        @property
        def port(self) -> int | None: ...
        @property
        def path(self) -> str: ...
        @property
        def raw_path(self) -> bytes: ...
        @property
        def query(self) -> bytes: ...
        @property
        def fragment(self) -> str: ...
        @property
        def userinfo(self) -> bytes: ...

    class Headers(Protocol):
        """The headers of a request."""

        @property
        def raw(self) -> list[tuple[bytes, bytes]]: ...
        def __setitem__(self, key: str, value: str, /) -> None: ...
        def get_list(self, key: str, split_commas: bool = False, /) -> list[str]: ...  # noqa: FBT001, FBT002 - as httpx has it

    class Message(Protocol):
        """A request or a response: something with a body."""

        def read(self) -> bytes: ...
        async def aread(self) -> bytes: ...

    class Request(Message, Protocol):
        """A request, as a client hands it to an auth flow."""

        @property
        def url(self) -> URL: ...
        @property
        def headers(self) -> Headers: ...
        @property
        def stream(self) -> Any: ...

    class Response(Message, Protocol):
        """A response, as a client hands it to an auth flow."""

        @property
        def status_code(self) -> int: ...
        @property
        def headers(self) -> Headers: ...
        @property
        def request(self) -> Any: ...


class Answer(Protocol):
    """The response of a token endpoint, whose body has been read."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content(self) -> bytes: ...


def comes_from_package_of(message: object, error: BaseException) -> bool:
    """Was `error` raised by the package of `message` (httpx or httpx2), rather than by the user's code?"""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return raised_in.partition(".")[0] == type(message).__module__.partition(".")[0]


class HttpPackage:
    """The differences between httpx and httpx2."""

    __slots__ = ("byte_stream", "client_errors", "transport_error", "url")

    def __init__(
        self,
        url: Callable[[str], URL],
        byte_stream: type,
        transport_error: type[Exception],
        client_errors: tuple[type[RefreshError], ...],
    ) -> None:
        self.url = url
        self.byte_stream = byte_stream
        self.transport_error = transport_error
        self.client_errors = client_errors

    @property
    def name(self) -> str:
        """`"httpx"` or `"httpx2"`."""
        return self.transport_error.__module__.partition(".")[0]
