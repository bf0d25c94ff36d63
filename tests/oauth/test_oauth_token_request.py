"""Tests of a token request on the wire. Decoders that share no code with the package read it."""

from __future__ import annotations

import base64
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_reauth import Token
from httpx_reauth.oauth import Grant, TokenRequest

URL = "https://id.example.com/token"
AWKWARD = [
    "plain",
    "a:b",
    "50%",
    "100%25",
    "a&b=c",
    "a+b",
    "a b",
    " ",
    "ünïcödé",
    "密码",
    "😀",
    "~*-._",
    "\\\"'/?#;@",
    "",
]


def decode_form_component(text: str) -> str:
    """Appendix B of RFC 6749, read letter by letter: plus is a blank, %XX a byte, the bytes are UTF-8."""
    out = bytearray()
    letters = iter(text)
    for letter in letters:
        if letter == "%":
            out.append(int(next(letters) + next(letters), 16))
        else:
            assert letter.isascii()
            assert letter.isalnum() or letter in "*-._+~"
            out += b" " if letter == "+" else letter.encode()
    return out.decode("utf-8")


def decode_basic(header: str) -> tuple[str, str]:
    scheme, _, credentials = header.partition(" ")
    assert scheme == "Basic"
    client_id, colon, secret = base64.b64decode(credentials, validate=True).decode("ascii").partition(":")
    assert colon
    return decode_form_component(client_id), decode_form_component(secret)


def decode_form(body: bytes) -> list[tuple[str, str]]:
    pairs = [pair.partition("=") for pair in body.decode("ascii").split("&")]
    return [(decode_form_component(name), decode_form_component(value)) for name, _, value in pairs]


def basic_header(client_id: str, secret: str) -> str:
    return TokenRequest(URL, {}, basic=(client_id, secret)).all_headers["authorization"]


@pytest.mark.parametrize("secret", AWKWARD)
@pytest.mark.parametrize("client_id", AWKWARD)
def test_client_id_and_secret_arrive_as_they_are_in_the_header(client_id, secret):
    assert decode_basic(basic_header(client_id, secret)) == (client_id, secret)


text = st.text(st.characters(codec="utf-8"))


@given(text, text)
def test_any_client_id_and_secret_arrive_as_they_are(client_id, secret):
    assert decode_basic(basic_header(client_id, secret)) == (client_id, secret)


def test_the_example_of_rfc_6749_section_2_3_1_is_met_to_the_letter():
    assert basic_header("s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw") == "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3"


def test_the_example_of_rfc_6749_appendix_b_is_met_to_the_letter():
    assert TokenRequest(URL, {"x": " %&+£€"}).body == b"x=+%25%26%2B%C2%A3%E2%82%AC"


@pytest.mark.parametrize("value", AWKWARD)
def test_form_fields_arrive_as_they_are(value):
    body = TokenRequest(URL, {"client_id": value, "resource": [value, "b"]}).body
    assert decode_form(body) == [("client_id", value), ("resource", value), ("resource", "b")]


def test_json_is_asked_for_and_nothing_is_packed():
    assert TokenRequest(URL, {}).all_headers == {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/x-www-form-urlencoded",
    }


def test_headers_of_the_request_win():
    request = TokenRequest(URL, {}, headers={"Accept": "application/jwt", "DPoP": "proof"})
    assert request.all_headers["accept"] == "application/jwt"
    assert request.all_headers["dpop"] == "proof"


@pytest.mark.parametrize("headers", [{"a": "b\r\nc: d"}, {"a\n": "b"}, {"a": "ü"}])
def test_header_that_cannot_be_sent_is_refused_without_repeating_it(headers):
    with pytest.raises(ValueError, match="line break") as refused:
        TokenRequest(URL, {}, headers=headers)
    assert "c: d" not in str(refused.value)


def test_guarantee_11_request_shows_no_value_and_is_not_pickled():
    request = TokenRequest(
        URL + "?key=geheim", {"code": "geheim"}, basic=("geheim", "geheim"), headers={"dpop": "geheim"}
    )
    assert repr(request) == "TokenRequest('https://id.example.com/token?***', ['code'], spends='code')"
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(request)
    assert hash(request) == hash(TokenRequest(request.url, {}, basic=request.basic))


def test_guarantee_11_what_is_secret_is_known_in_every_spelling():
    secrets = TokenRequest(URL, {"client_secret": "a b%"}, basic=("me", "ä:"), headers={"dpop": "a/proof"}).secrets
    assert {"a b%", "a%20b%25", "a+b%25", "ä:", "%C3%A4%3A"} <= set(secrets)
    assert "bWU6JUMzJUE0JTNB" in secrets  # the whole of the header


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("refresh_token", "r", True),
        ("password", "abc", True),
        ("assertion", "eyJhbGciOi", True),
        ("anything_else", "12345678", True),
        ("anything_else", "offline", False),  # a word; the error's own words would be full of holes
        ("scope", "read write everything", False),
        ("audience", "https://api.example.com", False),
    ],
)
def test_guarantee_11_every_field_is_secret_but_those_that_are_known_to_be_public(name, value, secret):
    assert (value in TokenRequest(URL, {name: value}).secrets) is secret
    assert (value in TokenRequest(URL, {name: ["x", value]}).secrets) is secret


@pytest.mark.parametrize("per_attempt", ["assertion", {"assertion": "a"}])
def test_what_is_no_function_of_each_attempt_is_refused(per_attempt):
    with pytest.raises(TypeError, match="per_attempt must be a function"):
        TokenRequest("https://id.example.com/token", {}, per_attempt=per_attempt)


def test_a_function_of_each_attempt_that_returns_no_fields_is_said():
    class Own(Grant):
        def flow(self, token: Token, /):
            yield TokenRequest("https://id.example.com/token", {}, per_attempt=lambda: None)

    with pytest.raises(TypeError, match="per_attempt must return a mapping of form fields, not NoneType"):
        Own()(Token())
