"""What a grant asks the driver to post: one token request, as a value without I/O."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote, quote_plus, urlencode

import httpx

from httpx_reauth._errors import InsecureOrigin
from httpx_reauth._request.origins import is_loopback
from httpx_reauth._token import Discreet

FormFields = Mapping[str, str | Sequence[str]]

_SENDABLE = re.compile(r"[\x20-\x7e]*")
# What a server may say back without harm. Every other field that is sent counts as a secret: those of the
# first kind at any length, the rest from a length at which a value is not taken for an ordinary word.
_PUBLIC = frozenset({
    "grant_type",
    "client_id",
    "scope",
    "resource",
    "audience",
    "client_assertion_type",
    "subject_token_type",
    "requested_token_type",
})  # fmt: skip
_SECRET = frozenset({"client_secret", "refresh_token", "password", "code", "device_code", "code_verifier"})
_TELLING = 8  # characters


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest(Discreet):
    """One POST to a token endpoint (RFC 6749 §3.2).

    Attributes:
        url: the token endpoint; https, unless the grant says `allow_http`.
        data: the form; a field with a sequence of strings is repeated.
        basic: client id and secret for `Authorization: Basic`. They are form-encoded first, so that a colon, a
            percent sign or a letter outside of ASCII arrives as it is (RFC 6749 §2.3.1 and Appendix B).
        headers: further headers; they win over the driver's own.
        idempotent: sending it twice does no harm, so it may be sent again although the first may have been
            processed: a client-credentials request is, a request that spends a refresh token or a code is not.

    Raises:
        ValueError: a header has a line break, a control character or a letter outside of ASCII.

    Example: `TokenRequest(url, {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": jwt})`
    """

    url: str
    data: FormFields = field(hash=False)
    basic: tuple[str, str] | None = field(default=None, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), kw_only=True, hash=False)
    idempotent: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for name, value in self.headers.items():
            if not (_SENDABLE.fullmatch(name) and _SENDABLE.fullmatch(value)):
                raise ValueError(
                    "A header of this token request cannot be sent: it has a line break, a control character or a "
                    "letter outside of ASCII. Was it read from a file without .strip()?"
                )

    @property
    def body(self) -> bytes:
        """The form as it is sent: `application/x-www-form-urlencoded`, in UTF-8 (RFC 6749 Appendix B)."""
        return urlencode(self.data, doseq=True).encode("ascii")

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers as they are sent: JSON is asked for, and no compression."""
        headers = {
            "accept": "application/json",
            "accept-encoding": "identity",  # an answer is small, and its size is bounded before it is unpacked
            "content-type": "application/x-www-form-urlencoded",
        }
        if self.basic is not None:
            headers["authorization"] = f"Basic {self._credentials(*self.basic)}"
        return headers | {name.lower(): value for name, value in self.headers.items()}

    @property
    def secrets(self) -> list[str]:
        """Whatever is sent that no error may repeat, also as it looks when it is encoded."""
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
            encoded.append(self._credentials(*self.basic))
        return plain + encoded + [quote(value, safe="") for value in plain] + [quote_plus(value) for value in plain]

    @staticmethod
    def _credentials(client_id: str, client_secret: str) -> str:
        # A blank as %20, not as a plus: whoever decodes a form reads both, and some servers undo percent signs alone.
        pair = f"{quote(client_id, safe='')}:{quote(client_secret, safe='')}"
        return base64.b64encode(pair.encode("ascii")).decode("ascii")

    def __repr__(self) -> str:
        """Where it goes and the names of what it sends, without a value."""
        return f"TokenRequest({without_query(self.url)!r}, {sorted(self.data)}, idempotent={self.idempotent})"


@dataclass(frozen=True, slots=True)
class MetadataRequest:
    """One GET of a JSON document about the server, without any secret (RFC 8414 section 3.1).

    Attributes:
        url: where it is.
        shared: set once somebody else's request for the same document has ended. The driver waits for that instead of
            sending this one, and sends None into the flow. None: send it.
    """

    url: str
    shared: threading.Event | None = field(default=None, kw_only=True, compare=False, repr=False)


def check_token_url(url: str, *, allow_http: bool) -> None:
    """Refuse a token endpoint to which no secret may be sent (RFC 6749 §3.2).

    Raises:
        ValueError: it is not an absolute http(s) URL, or it has a fragment or a user name in it.
        InsecureOrigin: it is plain http to another machine, and `allow_http` is not set.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise ValueError("The token URL is not a URL. Give an absolute one: 'https://id.example.com/token'.") from None
    if parsed.scheme not in ("https", "http") or not parsed.host:
        raise ValueError("The token URL must be an absolute https URL, e.g. 'https://id.example.com/token'.")
    if parsed.userinfo:
        raise ValueError("The token URL has a user name in it. Pass client_id= and client_secret= instead.")
    if "#" in url:
        raise ValueError("The token URL has a fragment, which RFC 6749 §3.2 forbids. Leave out everything from '#'.")
    if parsed.scheme == "http" and not allow_http and not is_loopback(parsed.host):
        raise InsecureOrigin(
            f"The token endpoint {origin_of(url)} is plain http on another machine: every secret would be readable "
            "on the way there (RFC 6749 §3.2), so nothing is sent. Use https, or say allow_http=True."
        )


def origin_of(url: str) -> str:
    """Scheme, host and port of `url`: what an error may say of it."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def without_query(url: str) -> str:
    """`url`, but not its query, which may hold an API key."""
    path, question_mark, _ = url.partition("?")
    return f"{path}?***" if question_mark else path
