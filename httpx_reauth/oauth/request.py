"""The two requests that a grant can yield to the driver: a token request, or a request for a JSON document.

They are values and do no I/O.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlencode, urlsplit

from httpx_reauth._errors import InsecureOrigin, in_ascii
from httpx_reauth._request.origins import is_loopback
from httpx_reauth._token import Unpicklable
from httpx_reauth.oauth.client_auth import ClientIdentity, basic_credentials, in_every_spelling

if TYPE_CHECKING:
    from httpx_reauth._request.packages import URL

FormFields = Mapping[str, str | Sequence[str]]

_SENDABLE = re.compile(r"[\x20-\x7e]*")
# An error may repeat the values of the `_PUBLIC` fields. It must not repeat those of the `_SECRET` fields. It must not
# repeat the value of any other field either, unless the value is so short that it may be an ordinary word (`_TELLING`).
_PUBLIC = frozenset({
    "grant_type",
    "client_id",
    "scope",
    "resource",
    "audience",
    "client_assertion_type",
    "subject_token_type",
    "actor_token_type",
    "requested_token_type",
})  # fmt: skip
_SECRET = frozenset({
    "client_secret",
    "refresh_token",
    "password",
    "code",
    "device_code",
    "code_verifier",
    "assertion",
    "client_assertion",
    "subject_token",
    "actor_token",
})  # fmt: skip
_TELLING = 8  # characters; a shorter value of another field does not count as a secret

_BY_FORM = "as the form says"  # the default of `spends`; `__post_init__` replaces it
_SPENT_BY_FORM = ("refresh_token", "code")  # RFC 6749 section 6 and 4.1.3: each may be used once
_TOKEN_URL = "token URL"
_NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest(Unpicklable):
    """One POST to a token endpoint (RFC 6749 section 3.2).

    Attributes:
        url: the URL of the token endpoint; https, unless the grant has `allow_http`.
        data: the form. A field with a sequence of strings is repeated.
        basic: client id and secret for `Authorization: Basic`. They are form-encoded first, so that the server receives
            a colon, a percent sign or a letter outside of ASCII unchanged (RFC 6749 section 2.3.1 and Appendix B).
        client_auth: the client and its method of authentication, if `basic` is not enough. It makes a new proof for
            each attempt, since an assertion may be used only once.
        headers: further headers; they replace the library's own.
        per_attempt: a function that returns further fields of the form. It is called before each attempt. Use it for a
            value that may be sent only once, such as an assertion with a `jti`. No error repeats these values.
        spends: the name of the field that the server accepts only once, e.g. `"refresh_token"`. None: a second request
            does no harm. The default is `"refresh_token"` or `"code"`, if the form has that field, else None. Three
            rules hold for a request that spends something. It is sent again only if the server cannot have processed
            it. Its response is awaited for longer than `timeout`. If its error is `invalid_grant`, that is final.

    Raises:
        ValueError: a header has a line break, a control character or a letter outside of ASCII. Or both `basic` and
            `client_auth` are set.
        TypeError: `per_attempt` is not a function.

    Example: `TokenRequest(url, {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": jwt})`; or,
        with a new assertion for each attempt, `TokenRequest(url, {...}, per_attempt=lambda: {"assertion": sign()})`
    """

    url: str
    data: FormFields = field(hash=False)
    basic: tuple[str, str] | None = field(default=None, kw_only=True)
    client_auth: ClientIdentity | None = field(default=None, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), kw_only=True, hash=False)
    per_attempt: Callable[[], Mapping[str, str]] | None = field(default=None, kw_only=True)
    spends: str | None = field(default=_BY_FORM, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", text_of(self.url))
        if self.spends == _BY_FORM:
            spent = next((name for name in _SPENT_BY_FORM if name in self.data), None)
            object.__setattr__(self, "spends", spent)
        if self.basic is not None and self.client_auth is not None:
            raise ValueError("A token request authenticates in one way (RFC 6749 section 2.3): basic or client_auth.")
        if self.per_attempt is not None and not callable(self.per_attempt):
            raise TypeError(
                f"per_attempt must be a function that returns form fields, not {type(self.per_attempt).__name__}."
            )
        for name, value in self.headers.items():
            if not (_SENDABLE.fullmatch(name) and _SENDABLE.fullmatch(value)):
                raise ValueError(
                    "A header of this token request cannot be sent: it has a line break, a control character or a "
                    "letter outside of ASCII. Was it read from a file without .strip()?"
                )

    @property
    def body(self) -> bytes:
        """The form as it is sent: `application/x-www-form-urlencoded`, in UTF-8 (RFC 6749 Appendix B)."""
        return form_of(self.data)

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers as they are sent. They request JSON without compression."""
        headers = {**_JSON, "content-type": "application/x-www-form-urlencoded"}
        if self.basic is not None:
            headers["authorization"] = f"Basic {basic_credentials(*self.basic)}"
        return headers | {name.lower(): value for name, value in self.headers.items()}

    @property
    def secrets(self) -> list[str]:
        """The values of the request that no error may repeat, also in their encoded spellings."""
        plain = [
            value
            for name, values in self.data.items()
            for value in ([values] if isinstance(values, str) else values)
            if name in _SECRET or (name not in _PUBLIC and len(value) >= _TELLING)
        ]
        plain += [value for value in self.headers.values() if len(value) >= _TELLING]
        encoded: list[str] = []
        if self.basic is not None:
            plain.append(self.basic[1])
            encoded.append(basic_credentials(*self.basic))
        return encoded + in_every_spelling(plain)

    def __repr__(self) -> str:
        """The URL and the names of the fields, without their values."""
        return f"TokenRequest({without_query(self.url)!r}, {sorted(self.data)}, spends={self.spends!r})"


@dataclass(frozen=True, slots=True)
class MetadataRequest:
    """One GET of a JSON document about the server (RFC 8414 section 3.1). It contains no secret.

    Attributes:
        url: the URL of the document.
        shared: None: the driver sends this request. An event: another thread has sent a request for the same document,
            and sets the event when it has the response. The driver waits for the event instead of sending the request,
            and sends None into the flow.
    """

    url: str
    shared: threading.Event | None = field(default=None, kw_only=True, compare=False, repr=False)

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers as they are sent. They request JSON without compression."""
        return dict(_JSON)


# Without compression, the limit of the response's size holds for its real content; a response is small anyway.
_JSON = {"accept": "application/json", "accept-encoding": "identity"}


def form_of(data: FormFields) -> bytes:
    """Return `data` encoded as `application/x-www-form-urlencoded`, in UTF-8 (RFC 6749 Appendix B)."""
    return urlencode(data, doseq=True).encode("ascii")


class _Parts(NamedTuple):
    scheme: str
    host: str
    netloc: str


def text_of(url: str | URL) -> str:
    """Return `url` as a string. It may be a string, or a `URL` of httpx or httpx2.

    Raises:
        ValueError: `url` is something else, e.g. None.
    """
    given = cast("object", url)
    if isinstance(given, str):
        return given
    if not (hasattr(given, "scheme") and hasattr(given, "host")):
        raise _not_a_url()
    return str(given)


def check_token_url(url: str, *, allow_http: bool, what: str = _TOKEN_URL) -> None:
    """Raise an error if no secret may be sent to `url` (RFC 6749 section 3.2).

    Args:
        url: the URL of an endpoint.
        allow_http: `url` may be plain http on another machine.
        what: the name of `url` in the error's message.

    Raises:
        ValueError: `url` is not an absolute http(s) URL, or has a fragment or a user name.
        InsecureOrigin: `url` is plain http on another machine, and `allow_http` is not set.
    """
    parts = _split(url, what)
    if "#" in url:
        raise ValueError(
            f"The {what} has a fragment, which RFC 6749 section 3.2 forbids. Leave out everything from '#'."
        )
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.host):
        raise InsecureOrigin(
            f"The {what} {origin_of(url)} is plain http on another machine: every secret would be readable "
            "on the way there (RFC 6749 section 3.2), so nothing is sent. Use https, or say allow_http=True."
        )


def _split(url: str, what: str = _TOKEN_URL) -> _Parts:
    """Split `url` with the standard library, so that the check needs neither httpx nor httpx2.

    A URL with a backslash or a space is refused: two parsers might read two different hosts from it.
    """
    try:
        parts = urlsplit(text_of(url))
        port = parts.port
    except ValueError:
        raise _not_a_url(what) from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError(f"The {what} must be an absolute https URL, e.g. 'https://id.example.com/token'.")
    if "@" in parts.netloc:
        raise ValueError(f"The {what} has a user name in it. Pass client_id= and client_secret= instead.")
    if _NOT_IN_A_URL.search(url) or port == 0:
        raise _not_a_url(what)
    return _Parts(parts.scheme, parts.hostname, parts.netloc)


def _not_a_url(what: str = _TOKEN_URL) -> ValueError:
    return ValueError(f"The {what} is not a URL. Give an absolute one: 'https://id.example.com/token'.")


def origin_of(url: str) -> str:
    """Return scheme, host and port of `url` in ASCII. An error may show this part of a URL."""
    parts = _split(url)
    return in_ascii(f"{parts.scheme}://{parts.netloc}")


def without_query(url: str) -> str:
    """Return `url` with its query replaced by `***`, since a query may contain an API key."""
    path, question_mark, _ = url.partition("?")
    return f"{path}?***" if question_mark else path
