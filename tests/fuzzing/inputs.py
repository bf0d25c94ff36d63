"""Strategies: what a server, a disk or another program may put where the library expects a token."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote_plus

from hypothesis import strategies as st

# No secret is written here in one piece, because a traceback shows the source.
ACCESS = "answer".upper() + "-4c1f-" + "access".title()
REFRESH = "refresh".upper() + "-8e2b-" + "sent".title() * 2
CLIENT = "client".upper() + "-77aa-" + "sent".title()

NAMES = ("access_token", "refresh_token", "expires_in", "expires_at", "token_type", "scope", "id_token")
ERRORS = ("error", "error_description", "error_uri")
PLACES = ("format", "version", "extra", "signed_out")

ODD_TEXTS = (
    "", " ", "a b", "a\nb", "a\0b", "\x7f", "\u2028", "\ud800", "\udcff", "\U0001f511", "\u00ad\u200b", "ключ",
    "Bearer", "bEArEr",
    "mac", "DPoP", "3600", "-1", "1e3", "+5.", "9" * 301, "0x10", "٣", "NaN", "inf", "1" * 70_000,
    "2038-01-19T03:14:07Z",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "invalid_grant", "TOKEN_EXPIRED", "invalid_client",
    "read write",
    "__proto__", "%s%s%n", "{0}", "${jndi:x}", "<script>",
)  # fmt: skip
ODD_NUMBERS = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "5e-324", "-0", "1E+2", "0", "3600", "-3600",
    "1e300", "1e299",
    "9" * 300, "9" * 400, "9" * 5000, "0.1", "2147483648", "1893456000", "1893456000000", "1e11",
)  # fmt: skip
DEPTHS = (2, 99, 101, 300, 900, 1100, 20_000, 200_000)


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def _deep_object(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=20)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
written = st.one_of(
    st.sampled_from(ODD_NUMBERS),
    texts.map(json.dumps),
    values.map(json.dumps),
    st.text(max_size=10).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(DEPTHS).map(_deep),
    st.sampled_from(DEPTHS).map(_deep_object),
    st.sampled_from(['["a", "b"]', '{"message": "invalid_grant"}', '{"code": 400}', "[]", "{}", "'x'"]),
)  # fmt: skip
echoes = st.sampled_from(
    [REFRESH, CLIENT, quote_plus(CLIENT), REFRESH * 2, f"{REFRESH[:18]}...", f"x{REFRESH}", f"{CLIENT}x"]
)
said = st.tuples(texts, echoes, texts).map("".join).map(json.dumps) | written
secret = json.dumps(ACCESS)


@st.composite
def _objects(draw: Callable[..., Any], usual: dict[str, Any], odd: tuple[str, ...]) -> str:
    """Draw a JSON object like `usual`, with fields left out, replaced, repeated and added."""
    fields = [(name, json.dumps(value)) for name, value in usual.items() if draw(st.integers(0, 9))]
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from((*usual, *odd)) | texts)
        value = draw(said if name in ERRORS else written)
        fields.insert(draw(st.integers(0, len(fields))), (name, value))
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in fields) + "}"


@st.composite
def _mutated(draw: Callable[..., Any], data: st.SearchStrategy[bytes]) -> bytes:
    """Draw bytes, and remove, replace or add a few of them."""
    mutant = bytearray(draw(data))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        start = draw(st.integers(0, len(mutant)))
        mutant[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(mutant)


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")


encodings = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"])
_USUAL = {"access_token": ACCESS, "token_type": "Bearer", "expires_in": 3600, "refresh_token": "next", "scope": "a b"}
_REFUSAL = {
    "error": "invalid_request",
    "error_description": f"unknown token {REFRESH}",
    "error_uri": "https://id.test/e",
}
answers = _objects(_USUAL, (*NAMES, *ERRORS)) | _objects(_REFUSAL, (*NAMES, *ERRORS))
pairs = st.tuples(st.sampled_from((*NAMES, *ERRORS)), texts | st.just(ACCESS)).map(
    lambda pair: (pair[0], pair[1] if pair[0] not in ERRORS else "invalid_grant")
)
forms = st.lists(pairs, max_size=120).map(
    lambda fields: "&".join(f"{name}={quote_plus(value, errors='replace')}" for name, value in fields).encode()
)
bodies = st.one_of(
    _mutated(st.builds(_encoded, answers, encodings)),
    _mutated(st.builds(_encoded, answers, encodings)),
    st.builds(_encoded, written, encodings),
    _mutated(forms),
    st.binary(max_size=200),
)

DOCUMENT = {
    "format": "httpx_reauth token", "version": 1, "access_token": ACCESS, "refresh_token": REFRESH,
    "expires_in": 3600,
    "expires_at": 1893456000.5, "token_type": "Bearer", "scope": "a b", "extra": {"id_token": ACCESS}, "note": "kept",
}  # fmt: skip
documents = st.one_of(
    _mutated(st.builds(_encoded, _objects(DOCUMENT, (*NAMES, *PLACES)), encodings)),
    st.builds(_encoded, _objects(DOCUMENT, (*NAMES, *PLACES)), st.just("utf-8")),
    st.builds(_encoded, written, encodings),
    st.binary(max_size=200),
    st.sampled_from([b"", b"\0" * 4096, b"[" * 2_000_000, b"9" * 2_000_000, b'{"a":' * 300_000, b" " * 1_048_577]),
)  # fmt: skip

TYPES = (
    b"application/json", b"application/json; charset=utf-16", b"text/json;charset=none",
    b"application/x-www-form-urlencoded",
    b"text/plain", b"text/html", b"application/x-www-form-urlencoded; charset=\xff", b"", b";",
    b"multipart/form-data; boundary=",
)  # fmt: skip
DATES = (
    b"Tue, 14 Nov 2023 22:13:20 GMT", b"Tue, 14 Nov 10000 22:13:20 GMT", b"0", b"120", b"1e9", b"-5", b"9" * 5000,
    b"\xff", b"NaN",
    b"Thu, 01 Jan 1970 00:00:00 +9999", b"Tue, 14 Nov 2023 25:61:61 GMT", b"3.5", b"1, 2", b"Tue", b"14 Nov",
    b"Nov Nov Nov Nov Nov",
    b"Tue, 99999999999999999999 Nov 2023 22:13:20 -0000", b"Sunday, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov  6 08:49:37 1994",
)  # fmt: skip
CHALLENGES = (
    b"Bearer", b'Bearer realm="api", error="invalid_token"', b'Bearer error="' + b"x" * 30_000, b"Basic",
    b"Digest qop=auth, nonce=\xff",
    b'Bearer realm="\\"\\\\', b", , ,", b"=", b"Negotiate " + b"A" * 4000,
    b'Bearer authorization_uri="javascript:alert(1)"',
    b'Bearer error="insufficient_claims", claims="e30="', b'DPoP error="use_dpop_nonce"',
)  # fmt: skip
LOCATIONS = (
    b"/",
    b"//",
    b"http://[",
    b"https:x",
    b"\xff",
    b"http://xn--zz/",
    b"http://h:p/",
    b"javascript:x",
    b"",
    b"http://169.254.169.254/",
)
# Visible bytes, and bytes of other encodings: an HTTP parser lets them through.
header_values = st.binary(max_size=20).map(lambda data: bytes(b for b in data if b > 31 and b != 127).strip())
headers = st.lists(
    st.one_of(
        st.tuples(st.just(b"Content-Type"), st.sampled_from(TYPES) | header_values),
        st.tuples(st.sampled_from([b"Retry-After", b"Date"]), st.sampled_from(DATES) | header_values),
        st.tuples(st.just(b"WWW-Authenticate"), st.sampled_from(CHALLENGES) | header_values),
        st.tuples(st.just(b"Location"), st.sampled_from(LOCATIONS) | header_values),
        st.tuples(st.sampled_from([b"Server", b"X-Token", b"DPoP-Nonce", b"Link", b"Vary", b"Alt-Svc"]), header_values),
    ),
    max_size=5,
)
statuses = st.sampled_from([200, 200, 200, 201, 204, 302, 307, 400, 400, 401, 403, 408, 429, 500, 503, 599, 999])


class Answer(NamedTuple):
    """An answer of a token endpoint."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


whole_answers = st.builds(Answer, statuses, headers, bodies)


def _chunked(body: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part) + b"0\r\n\r\n"


def _raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


FRAMES: tuple[Callable[[bytes], tuple[bytes, bytes]], ...] = (
    lambda body: (b"Content-Length: %d\r\n" % len(body), body),
    lambda body: (b"Content-Length: %d\r\n" % (len(body) + 9), body),  # the body breaks off
    lambda body: (b"Content-Length: %d\r\n" % (len(body) // 2), body),  # the body is longer than that
    lambda body: (b"Content-Length: -1\r\n", body),
    lambda body: (b"Content-Length: 1\r\nContent-Length: 2\r\n", body),
    lambda body: (b"", body),  # the body ends with the connection
    lambda body: (b"Transfer-Encoding: chunked\r\n", _chunked(body)),
    lambda body: (b"Transfer-Encoding: chunked\r\n", _chunked(body)[:-5]),
    lambda body: (b"Transfer-Encoding: chunked\r\n", b"fffffffffffffffffff\r\n" + body),
    lambda body: (b"Transfer-Encoding: gzip, chunked\r\n", _chunked(gzip.compress(body))),
    lambda body: (b"Content-Encoding: gzip\r\n", gzip.compress(body)),
    lambda body: (b"Content-Encoding: gzip\r\n", gzip.compress(body)[:-9] + b"damaged"),
    lambda body: (b"Content-Encoding: gzip\r\n", gzip.compress(body) * 3),
    lambda body: (b"Content-Encoding: gzip\r\n", gzip.compress(b" " * 4_000_000 + body, 1)),  # a small compression bomb
    lambda body: (b"Content-Encoding: deflate\r\n", zlib.compress(body)),
    lambda body: (b"Content-Encoding: deflate\r\n", _raw_deflate(body)),
    lambda body: (b"Content-Encoding: gzip, gzip\r\n", gzip.compress(gzip.compress(body))),
    lambda body: (b"Content-Encoding: br\r\n", body),
)
BEFORE = (
    b"",
    b"",
    b"",
    b"",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    b"HTTP/1.1 103 Early Hints\r\nlink: \xff\r\n\r\n",
    b"\r\n",
    b"\0",
)


@st.composite
def wires(draw: Callable[..., Any]) -> bytes:
    """Draw the bytes of an answer as a socket receives them."""
    answer = draw(whole_answers)
    framing, body = draw(st.sampled_from(FRAMES))(answer.body)
    lines = b"".join(b"%s: %s\r\n" % header for header in answer.headers)
    line = draw(
        st.sampled_from([b"HTTP/1.1 %d Said", b"HTTP/1.1 %d Said", b"HTTP/1.0 %d", b"HTTP/1.1 %d \xff", b"HTTP/2 %d x"])
    )
    data = draw(st.sampled_from(BEFORE)) + line % answer.status + b"\r\n" + lines + framing + b"\r\n" + body
    return draw(_mutated(st.just(data))) if draw(st.booleans()) else data
