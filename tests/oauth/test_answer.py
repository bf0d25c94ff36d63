"""Tests of a token endpoint's answer: RFC 6749 §5.1 and §5.2, and what servers really send."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_reauth import ReauthError, RefreshError, SignInRequired, Token
from httpx_reauth._errors import copy_for_waiter, take_refresh_token
from httpx_reauth.oauth.redaction import redact

JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def answer(
    body: bytes | str | Mapping[str, Any] | list[Any],
    status: int = 200,
    content_type: str | None = JSON,
    **headers: str,
) -> httpx.Response:
    if isinstance(body, (Mapping, list)):
        body = json.dumps(body)
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        named["Content-Type"] = content_type
    return httpx.Response(status, content=content, headers=named)


def token_with(**fields: Any) -> Token:
    return Token.from_response(answer({"access_token": "a", **fields}))


def error_of(response: Any) -> ReauthError:
    with pytest.raises(ReauthError) as caught:
        Token.from_response(response)
    assert type(caught.value) in (RefreshError, SignInRequired)
    return caught.value


def outcome_of(response: Any) -> Token | ReauthError:
    try:
        return Token.from_response(response)
    except (RefreshError, SignInRequired) as error:
        return error


# Both packages.


@pytest.mark.parametrize("package", ["httpx", "httpx2"])
def test_the_example_of_the_rfc(package: str):
    httpx_or_2 = pytest.importorskip(package)
    response = httpx_or_2.Response(
        200,
        json={
            "access_token": "2YotnFZFEjr1zCsicMWpAA",
            "token_type": "bearer",
            "expires_in": 3600,
            "refresh_token": "tGzv3JOkF0XG5Qx2TlKWIA",
            "example_parameter": "example_value",
        },
    )
    assert Token.from_response(response) == Token(
        "2YotnFZFEjr1zCsicMWpAA",
        expires_in=3600,
        refresh_token="tGzv3JOkF0XG5Qx2TlKWIA",
        extra={"example_parameter": "example_value"},
    )


def test_the_fields_alone_will_do():
    assert Token.from_response({"access_token": "a", "expires_in": "60", "id_token": "i"}) == Token(
        "a", expires_in=60, extra={"id_token": "i"}
    )


def test_what_asdict_makes_of_a_token_can_be_read_as_an_answer_too():
    token = Token("a", refresh_token="r", expires_in=60, expires_at=1000, scope="s")
    stored = {"access_token": "a", "refresh_token": "r", "expires_in": 60, "expires_at": 1000, "scope": "s"}
    assert Token.from_response(stored) == token  # of a stored token the end counts, too


# How long it lives.

EXPIRES_IN = {
    "missing": (None, None),
    "an int": ("3600", 3600),
    "a float": ("3599.5", 3599.5),
    "with an exponent": ("36e2", 3600),
    "a string": ('"3600"', 3600),
    "a string with blanks": ('" 3600 "', 3600),
    "a string of a float": ('"3599.5"', 3599.5),
    "a string with a point at its end": ('"3600."', 3600),
    "a string with a sign": ('"+60"', 60),
    "zero": ("0", 0),
    "a string of zero": ('"0"', 0),
    "negative": ("-5", -5),
    "a negative string": ('"-5"', -5),
    "huge": ("1" + "0" * 100, 10**100),
    "beyond any float": ("1" + "0" * 400, None),
    "more digits than Python reads": ("9" * 10_000, None),
    "minus beyond any float": ("-1" + "0" * 400, None),
    "a string beyond any float": ('"' + "9" * 400 + '"', None),
    "1e400": ("1e400", None),
    "-1e400": ("-1e400", None),
    "a string of 1e400": ('"1e400"', None),
    "the largest": ("9.99e299", 9.99e299),
    "beyond the largest": ("1e300", None),
    "minus beyond the largest": ("-1e300", None),
    "NaN": ("NaN", None),
    "a string of NaN": ('"NaN"', None),
    "Infinity": ("Infinity", None),
    "-Infinity": ("-Infinity", None),
    "a string of Infinity": ('"Infinity"', None),
    "null": ("null", None),
    "true": ("true", None),
    "false": ("false", None),
    "an empty string": ('""', None),
    "garbage": ('"an hour"', None),
    "a duration": ('"PT1H"', None),
    "two numbers": ('"3600 7200"', None),
    "an underscore": ('"3_600"', None),
    "Arabic digits": ('"\u0663\u0666\u0660\u0660"', None),
    "a line break": ('"3600\\n"', 3600),
    "a list": ("[3600]", None),
    "an object": ('{"seconds": 3600}', None),
}


@pytest.mark.parametrize(("spelt", "seconds"), EXPIRES_IN.values(), ids=EXPIRES_IN)
def test_expires_in_however_it_is_spelt(spelt: str | None, seconds: float | None):
    field = "" if spelt is None else f', "expires_in": {spelt}'
    token = Token.from_response(answer(f'{{"access_token": "a"{field}}}'))
    assert token.expires_in == seconds
    assert token.expires_at is None
    assert type(token.expires_in) is not bool


EXPIRES_AT = {
    "seconds": (1_700_000_000, 1_700_000_000),
    "a float": (1_700_000_000.5, 1_700_000_000.5),
    "a string": ("1700000000", 1_700_000_000),
    "zero": (0, 0),
    "negative": (-1, -1),
    "the last second": (99_999_999_999, 99_999_999_999),
    "milliseconds": (1_700_000_000_123, 1_700_000_000.123),
    "a string of milliseconds": ("1700000000123", 1_700_000_000.123),
    "the first milliseconds": (100_000_000_000, 100_000_000),
    "ISO, Z": ("2023-11-14T22:13:20Z", 1_700_000_000),
    "ISO, fractions": ("2023-11-14T22:13:20.500Z", 1_700_000_000.5),
    "ISO, an offset": ("2023-11-15T00:13:20+02:00", 1_700_000_000),
    "ISO, no offset is UTC": ("2023-11-14T22:13:20", 1_700_000_000),
    "ISO, a blank": (" 2023-11-14 22:13:20+00:00 ", 1_700_000_000),
    "ISO, a day": ("2023-11-14", 1_699_920_000),
    "ISO, the last year": ("9999-12-31T23:59:59Z", 253_402_300_799),
    "ISO, beyond the calendar": ("9999-12-31T23:59:59-23:59", 253_402_300_799),
    "ISO, seven digits, as .NET writes them": ("2023-11-14T22:13:20.1234567Z", 1_700_000_000.1234567),
    "ISO, nine digits": ("2023-11-14T22:13:20.123456789+00:00", 1_700_000_000.123456789),
    "ISO, one digit": ("2023-11-14T22:13:20.5+00:00", 1_700_000_000.5),
    "ISO, a comma": ("2023-11-14T22:13:20,5Z", 1_700_000_000.5),
    "ISO, an offset without a colon": ("2023-11-14T22:13:20+0000", 1_700_000_000),
    "ISO, digits and an offset without a colon": ("2023-11-14T20:13:20.1234567-0200", 1_700_000_000.1234567),
    "ISO, an offset of hours": ("2023-11-15T00:13:20+02", 1_700_000_000),
    "ISO, small letters": ("2023-11-14t22:13:20z", 1_700_000_000),
    "ISO, the basic format": ("20231114T221320Z", 1_700_000_000),
    "ISO, no seconds": ("2023-11-14T22:13Z", 1_699_999_980),
    "ISO, a blank before the offset": ("2023-11-14 22:13:20 +00:00", 1_700_000_000),
    "an HTTP date": ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000),
    "microseconds": (1_700_000_000_123_456, 1_700_000_000.123456),
    "nanoseconds": (1_700_000_000_123_456_789, 1_700_000_000.1234567),
    "beyond all of these": (10**30, None),
    "ISO, a thirteenth month": ("2023-13-14T22:13:20Z", None),
    "null": (None, None),
    "true": (True, None),
    "garbage": ("tomorrow", None),
    "an empty string": ("", None),
    "a list": ([1_700_000_000], None),
}


@pytest.mark.parametrize(("spelt", "seconds"), EXPIRES_AT.values(), ids=EXPIRES_AT)
def test_expires_at_instead(spelt: Any, seconds: float | None):
    expected = None if seconds is None else pytest.approx(seconds, abs=1e-6)
    assert token_with(expires_at=spelt).expires_at == expected
    assert token_with(expires_on=spelt).expires_at == expected  # Azure's name for it
    assert Token.from_response({"access_token": "a", "expires_at": spelt}).expires_at == expected


def test_of_a_fresh_answer_the_lifetime_counts_and_not_the_time_of_day():
    token = token_with(expires_in=60, expires_at=5)
    assert (token.expires_in, token.expires_at) == (60, None)
    token = token_with(expires_in="garbage", expires_at=5)
    assert (token.expires_in, token.expires_at) == (None, 5)
    token = Token.from_response({"access_token": "a", "expires_in": 60, "expires_at": 5})
    assert (token.expires_in, token.expires_at) == (60, 5)  # that may be a stored one


def test_expires_at_counts_before_expires_on():
    token = token_with(expires_at=1_700_000_000, expires_on=1_800_000_000)
    assert token.expires_at == 1_700_000_000
    assert token_with(expires_at="garbage", expires_on="1800000000").expires_at == 1_800_000_000
    assert token_with(expires_in=60, expires_on=5).expires_at is None
    assert "expires_on" not in token.extra


# The other fields.


@pytest.mark.parametrize(
    "token_type", ["Bearer", "bearer", "BEARER", "bEaReR", " bearer ", "", None, "BearerToken", "Bearer Token"]
)
def test_any_spelling_of_bearer_or_none_is_bearer(token_type: str | None):
    assert token_with(token_type=token_type).token_type == "Bearer"
    assert token_with().token_type == "Bearer"


@pytest.mark.parametrize(
    "token_type",
    ["User Access Token", "bot", "user", "basic", "Bearerx", "weird", "urn:ietf:params:oauth:token-type:access_token",
     "access_token", "JWT", "x" * 1_000, "\u65e5\x1b[31m", 1, True, ["Bearer"], {}],
)  # fmt: skip
def test_a_type_that_is_no_scheme_is_the_servers_name_for_bearer(token_type: Any):
    assert token_with(token_type=token_type).token_type == "Bearer"
    assert Token.from_response({"access_token": "a", "token_type": token_type}).token_type == "Bearer"


def test_a_type_that_is_no_scheme_is_logged_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG", "httpx_reauth")
    for name in ("eBay's own \u65e5", "eBay's own \u65e5", "Bearer", "bearer"):
        token_with(token_type=name)
    assert len(caplog.messages) == 1
    assert "eBay's own" in caplog.messages[0]
    assert caplog.messages[0].isascii()
    for number in range(1_000):
        token_with(token_type=f"type {number}")
    assert len(caplog.messages) < 100  # a server that makes a new name each time does not fill the disk


@pytest.mark.parametrize("token_type", ["mac", "MAC", "DPoP", "dpop", " DPoP ", "pop", "PoP", "N_A", "n_a"])
def test_a_token_of_a_type_that_is_another_scheme_is_an_error_that_names_it(token_type: str):
    fields = {"access_token": "s3cret", "token_type": token_type}
    for error in (error_of(answer(fields)), error_of(fields)):
        assert type(error) is RefreshError
        assert token_type.strip() in str(error)
        assert "authorize=" in str(error)
        assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("scope", "read"),
    [("a b", "a b"), ("", ""), (["a", "b"], "a b"), ([], ""), (["a", 1], "a 1"), (None, None), (1, None), ({}, None)],
)
def test_a_scope_may_be_a_list(scope: Any, read: str | None):
    assert token_with(scope=scope).scope == read


@pytest.mark.parametrize(("refresh_token", "read"), [("r", "r"), ("", None), (None, None), (5, "5")])
def test_an_empty_refresh_token_is_none_and_a_number_is_text(refresh_token: Any, read: str | None):
    assert token_with(refresh_token=refresh_token).refresh_token == read
    assert token_with().refresh_token is None


@pytest.mark.parametrize("refresh_token", [False, 0, [], {}])
def test_what_some_servers_write_for_no_refresh_token_keeps_the_last_one(refresh_token: Any):
    answered = token_with(refresh_token=refresh_token)
    assert answered.refresh_token is None
    assert Token(refresh_token="r1").renewed(answered, 0).refresh_token == "r1"


@pytest.mark.parametrize("refresh_token", [True, ["r"], {"r": 1}, 1.5, "r\n", "a\x00", "\ud800"])
def test_a_refresh_token_that_is_none_is_an_error(refresh_token: Any):
    error = error_of(answer({"access_token": "s3cret", "refresh_token": refresh_token}))
    assert type(error) is RefreshError
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("access_token", [None, "", 5, True, ["a"], {"a": 1}, "a\n", "a\r\nX: y", "\x00", " a", "ä"])
def test_an_access_token_that_is_none_is_an_error(access_token: Any):
    error = error_of(answer({"access_token": access_token, "refresh_token": "r"}))
    assert type(error) is RefreshError
    assert "\n" not in str(error)


@pytest.mark.parametrize("body", [{}, {"accessToken": "a"}, {"id_token": "i"}, {"error": None}, {"error": ""}])
def test_an_answer_without_an_access_token_is_an_error(body: dict[str, Any]):
    assert "no access_token" in str(error_of(answer(body)))
    assert "no access_token" in str(error_of(body))


def test_all_further_fields_are_kept():
    token = token_with(id_token="i", nested={"a": [1]}, expires_at=None, scope=None)
    assert token.extra == {"id_token": "i", "nested": {"a": [1]}}
    assert Token.from_response({"access_token": "a", 5: 6}).extra == {"5": 6}  # type: ignore[dict-item]


POINTED_TO: dict[str, tuple[dict[str, Any], list[str]]] = {
    "in an object": (
        {"data": {"access_token": "s3cret"}, "more": 1},
        ["fields are data (access_token), more.", 'Token.from_response(answer["data"])'],
    ),
    "in an object, under another name": (
        {"data": {"accessToken": "s3cret", "expiresAt": 1}},
        ["data (accessToken, expiresAt)", 'Token.from_response({"access_token": answer["data"]["accessToken"], ...})'],
    ),
    "under another name": (
        {"accessToken": "s3cret", "expiresIn": 60},
        ["accessToken, expiresIn", 'Token.from_response({"access_token": answer["accessToken"], ...})'],
    ),
    "under a name that nobody knows": (
        {"jwt": "s3cret", "ttl": 60},
        ["fields are jwt, ttl.", 'Token.from_response({"access_token": ..., ...})'],
    ),
}


@pytest.mark.parametrize(("body", "says"), POINTED_TO.values(), ids=POINTED_TO)
def test_a_token_under_another_name_is_pointed_to_with_the_call_that_reads_it(body: dict[str, Any], says: list[str]):
    for error in (error_of(answer(body)), error_of(body)):
        assert [part for part in (*says, "refresh function", "custom-endpoint") if part not in str(error)] == []
        assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (
            {"a" * 31: 1, "s3cret": 1, "two words": 1, "s\u00f6": 1, "n\n": 1, "": 1, "ada@example.com": 1, "id": 1},
            "fields are id.",
        ),
        (
            {f"name_{letter}": 1 for letter in "abcdefghijkl"},
            "name_a, name_b, name_c, name_d, name_e, name_f, name_g, name_h.",
        ),
        ({"a": {"eyJ0eXAi.eyJzdWIi.c2lnbmF0": 1}}, "fields are a."),
    ],
)
def test_of_the_names_of_an_answer_only_those_that_are_plain_and_few_are_shown(body: dict[str, Any], shown: str):
    assert shown in str(error_of(body))


@pytest.mark.parametrize("value", [None, ""])
def test_an_answer_with_an_empty_access_token_points_to_no_other_name(value: Any):
    assert str(error_of(answer({"access_token": value, "expires_in": 60}))).endswith("there is nothing to use.")


@pytest.mark.parametrize("text", ["c2VjcmV0LXRva2Vu==", "s3cret=1"])
def test_of_a_text_that_was_read_as_a_form_no_name_is_shown(text: str):
    error = error_of(httpx.Response(200, text=text))
    assert "fields are" not in str(error)
    assert text.partition("=")[0] not in str(error)


@pytest.mark.parametrize("package", ["httpx", "httpx2"])
def test_a_request_that_was_not_awaited_is_a_mistake_that_says_await(package: str):
    client = pytest.importorskip(package).AsyncClient()
    with pytest.raises(TypeError, match=r"await client\.post") as caught:
        Token.from_response(client.post("https://id.example.com/token"))  # which is not left behind un-awaited
    assert "RefreshError" not in repr(caught.value)


@pytest.mark.parametrize(
    "given",
    [None, "s3cret", b"s3cret", ["s3cret"], 5, Token("s3cret"), object(), httpx.Request("GET", "https://a.test")],
)
def test_what_is_no_answer_is_a_mistake_that_says_what_to_give(given: Any):
    with pytest.raises(TypeError, match="from_response takes") as caught:
        Token.from_response(given)
    assert type(given).__name__ in str(caught.value)
    assert "s3cret" not in str(caught.value)


# What it brings although it cannot be used.

R2 = "the-next-refresh-token"
UNUSABLE = {
    "another scheme": answer({"access_token": "s3cret-a", "refresh_token": R2, "token_type": "mac"}),
    "a line break in the access token": answer({"access_token": "s3cret-a\n", "refresh_token": R2}),
    "an access token that is no text": answer({"access_token": 5, "refresh_token": R2}),
    "no access token": answer({"refresh_token": R2}),
    "an error under 200": answer({"error": "server_error", "refresh_token": R2, "access_token": "s3cret-a"}),
    "an error under 400": answer({"error": "invalid_client", "refresh_token": R2}, 400),
    "a dead refresh token": answer({"error": "invalid_grant", "refresh_token": R2}, 400),
    "a redirect": answer({"refresh_token": R2}, 302),
    "a server that is down": answer({"refresh_token": R2}, 503),
    "an object": answer({"data": {"access_token": "s3cret-a", "refresh_token": R2}}),
    "an object in a list in an object": answer({"data": {"list": [{"refreshToken": R2}]}}),
    "half a JSON": answer(f'{{"access_token": "s3cret-a", "refresh_token": "{R2}", "expires_in": 36'),
    "a form": answer(f"refresh_token={R2}&x=1", content_type=FORM),
    "a form with an error": answer(f"error=access_denied&refresh_token={R2}", content_type=FORM),
    "an echo of it": answer({"error": "x", "error_description": f"no {R2} and no s3cret-a", "access_token": "s3cret-a",
                             "refresh_token": R2}, 400),
    "an escaped one": answer('{"data": {"refresh_token": "the-next-refresh\\u002dtoken"}}'),
}  # fmt: skip


@pytest.mark.parametrize("response", UNUSABLE.values(), ids=UNUSABLE)
def test_guarantee_2_an_answer_that_cannot_be_used_does_not_lose_its_refresh_token_nor_show_it(
    response: httpx.Response,
):
    error = error_of(response)
    shown = [
        repr(error),
        str(error),
        repr(error.args),
        repr(error.extra),
        repr(pickle.dumps(error)),
        str(vars(copy_for_waiter(error))),
    ]
    for twin in (copy_for_waiter(error), copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert "_refresh_token" not in vars(twin)
        shown.append(str(vars(twin)))
    assert [text for text in shown if R2 in text or "s3cret" in text] == []
    redact(error, R2)  # as a `Reauth` does with what it has sent
    assert take_refresh_token(error) == R2
    assert take_refresh_token(error) is None


@pytest.mark.parametrize(
    "fields", [{"refresh_token": R2}, {"error": "x", "refresh_token": R2}, {"data": {"refresh_token": R2}}]
)
def test_guarantee_2_nor_do_fields_that_come_to_no_token(fields: dict[str, Any]):
    assert take_refresh_token(error_of(fields)) == R2


def test_a_refresh_token_that_is_a_number_is_kept_as_text():
    assert take_refresh_token(error_of({"token_type": "mac", "access_token": "a", "refresh_token": 12345})) == "12345"


@pytest.mark.parametrize("refresh_token", ["a\nb", "", None, True, [1], {"a": 1}])
def test_what_is_no_refresh_token_is_not_kept(refresh_token: Any):
    assert take_refresh_token(error_of({"refresh_token": refresh_token})) is None


@pytest.mark.parametrize(
    "settings", [{"expires_in": "soon"}, {"expires_at": 1_764_355_200_000}, {"token_type": "two words"}]
)
def test_guarantee_2_a_token_that_cannot_be_made_does_not_lose_its_refresh_token_either(settings: dict[str, Any]):
    with pytest.raises((TypeError, ValueError)) as caught:
        Token("a", refresh_token=R2, **settings)
    assert R2 not in repr(caught.value)
    assert take_refresh_token(caught.value) == R2


# How it is written.


def test_a_byte_order_mark_is_read_over():
    assert Token.from_response(answer(b'\xef\xbb\xbf{"access_token": "a"}')).access_token == "a"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_json_in_another_unicode_encoding_is_read(encoding: str):
    assert Token.from_response(answer('{"access_token": "a"}'.encode(encoding))).access_token == "a"


def test_of_a_key_that_comes_twice_the_last_counts():
    assert Token.from_response(answer('{"access_token": "a", "access_token": "b"}')).access_token == "b"
    assert Token.from_response(answer("access_token=a&access_token=b", content_type=FORM)).access_token == "b"


@pytest.mark.parametrize("content_type", [JSON, "text/html", "text/plain; charset=utf-8", "garbage", "", None])
def test_json_is_read_whatever_it_calls_itself(content_type: str | None):
    assert Token.from_response(answer({"access_token": "a"}, content_type=content_type)).access_token == "a"


@pytest.mark.parametrize(
    "content_type",
    [FORM, f"{FORM}; charset=utf-8", "Application/X-WWW-Form-URLEncoded", "text/plain", " text/plain ;"],
)
def test_a_form_is_read_although_json_was_asked_for(content_type: str):
    body = "access_token=a%2Bb&expires_in=3600&scope=x+y&token_type=bearer&refresh_token="
    assert Token.from_response(answer(body, content_type=content_type)) == Token(
        "a+b", expires_in=3600, scope="x y", refresh_token=None
    )


def test_a_form_of_more_than_a_hundred_fields_is_none():
    fields = [b"access_token=a", *(b"a=b" for _ in range(99))]
    assert Token.from_response(answer(b"&".join(fields), content_type=FORM)).access_token == "a"
    assert type(error_of(answer(b"&".join([*fields, b"a=b"]), content_type=FORM))) is RefreshError


@pytest.mark.parametrize("content_type", [JSON, f"{JSON}; charset=utf-8", "text/html", None])
def test_a_form_that_is_called_json_is_read(content_type: str | None):
    body = "access_token=a%2Bb&expires_in=3600&refresh_token=r"
    assert Token.from_response(answer(body, content_type=content_type)) == Token(
        "a+b", expires_in=3600, refresh_token="r"
    )
    error = error_of(answer("error=bad_refresh_token&error_description=It+is+gone", 400, content_type))
    assert type(error) is SignInRequired


def test_a_form_may_hold_an_error_as_githubs_does():
    error = error_of(answer("error=bad_refresh_token&error_description=It+is+gone", content_type=FORM))
    assert type(error) is SignInRequired
    assert (error.error, error.error_description) == ("bad_refresh_token", "It is gone")


UNREADABLE = {
    "nothing": b"",
    "a blank": b" ",
    "half a JSON object": b'{"access_token": "a"',
    "HTML": b"<!doctype html><p>access_token=a",
    "a string": b'"access_token"',
    "a number": b"5",
    "null": b"null",
    "a list": b'[{"access_token": "a"}]',
    "latin-1": '{"access_token": "é"}'.encode("latin-1"),
    "binary": bytes(range(256)),
    "very deep": b"[" * 200_000,
    "very deep inside of a field": b'{"access_token": "a", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("content_type", [JSON, "text/html", "text/plain", FORM, None])
def test_what_is_neither_json_nor_a_form_is_an_error(body: bytes, content_type: str | None):
    error = error_of(answer(body, content_type=content_type))
    assert type(error) is RefreshError
    assert error.status_code in (200, None)


@pytest.mark.parametrize(
    ("encoding", "content_type"),
    [
        ("iso-8859-1", "application/json; charset=iso-8859-1"),
        ("iso-8859-1", 'application/json;charset="ISO-8859-1"'),
        ("windows-1252", "application/json; charset=windows-1252"),
        ("utf-16", "application/json"),
        ("utf-8-sig", "application/json"),
        ("utf-8", "application/json; charset=iso-8859-1"),  # what it is, whatever it says
        ("utf-8", "application/json; charset=no-such-thing"),
    ],
)
def test_json_in_another_encoding_is_read(encoding: str, content_type: str):
    body = '{"access_token": "a", "name": "Zoë"}'.encode(encoding)
    assert Token.from_response(answer(body, content_type=content_type)).extra == {"name": "Zoë"}


def test_json_in_no_encoding_at_all_is_an_error():
    body = '{"access_token": "a", "name": "Zoë"}'.encode("iso-8859-1")
    for content_type in ("application/json", "application/json; charset=no-such-thing"):
        assert type(error_of(answer(body, content_type=content_type))) is RefreshError


@pytest.mark.parametrize(
    "body",
    [b"access_token=\xff", b"\xffaccess_token=a", b"access_token=%ff", b"&".join(b"a=b" for _ in range(101)), b"a",
     b"=", b"access_token", b"access_token="],
)  # fmt: skip
def test_a_form_that_brings_no_token_is_an_error(body: bytes):
    assert type(error_of(answer(body, content_type=FORM))) is RefreshError


def test_an_answer_that_is_no_token_says_its_status():
    error = error_of(answer("<p>hello", content_type="text/html"))
    assert error.status_code == 200
    assert "token URL" in str(error)


# Errors.


@pytest.mark.parametrize(
    "code",
    ["invalid_grant", "bad_refresh_token", "invalid_refresh_token", "token_expired", "TOKEN_EXPIRED",
     "interaction_required", "login_required", "consent_required", "Invalid_Grant"],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_guarantee_6_a_dead_refresh_token_needs_a_sign_in(code: str, status: int):
    error = error_of(answer({"error": code, "error_description": "gone", "error_uri": "https://x"}, status))
    assert type(error) is SignInRequired
    assert (error.error, error.error_description, error.error_uri) == (code, "gone", "https://x")
    assert "Sign in again" in str(error)
    assert type(error_of({"error": code})) is SignInRequired


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_guarantee_6_a_server_that_is_down_or_busy_does_not_know_what_is_dead(status: int):
    error = error_of(answer({"error": "invalid_grant"}, status))
    assert type(error) is RefreshError
    assert (error.error, error.status_code) == ("invalid_grant", status)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 425, 429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("body", ["", "<h1>Oh no</h1>", "null", "[]", '"invalid_grant"', '{"detail": "x"}'])
def test_an_error_without_a_code_says_its_status(status: int, body: str):
    error = error_of(answer(body, status, "text/html"))
    assert type(error) is RefreshError
    assert (error.error, error.status_code) == (None, status)
    assert f"(status {status}): no error code" in str(error)


def test_a_token_beside_a_status_of_an_error_is_no_token():
    assert type(error_of(answer({"access_token": "a"}, 400))) is RefreshError
    assert type(error_of(answer({"access_token": "a"}, 503))) is RefreshError


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_guarantee_9_a_redirect_is_an_error_that_says_so(status: int):
    error = error_of(answer({"access_token": "a"}, status, location="https://evil.test/"))
    assert type(error) is RefreshError
    assert error.status_code == status
    assert f"redirect ({status})" in str(error)
    assert "evil" not in str(error)


def test_200_with_an_error_in_it_is_an_error():
    error = error_of(answer({"error": "invalid_client", "access_token": "a"}))
    assert type(error) is RefreshError
    assert (error.error, error.status_code) == ("invalid_client", 200)


@pytest.mark.parametrize(
    ("said", "code", "cls"),
    [
        ({"code": 400, "message": "TOKEN_EXPIRED"}, "TOKEN_EXPIRED", SignInRequired),
        (
            {"code": 400, "message": "INVALID_REFRESH_TOKEN", "status": "INVALID_ARGUMENT"},
            "INVALID_REFRESH_TOKEN",
            SignInRequired,
        ),
        ({"code": 403, "message": "SERVICE_DISABLED"}, "SERVICE_DISABLED", RefreshError),
        ({"code": 190, "type": "OAuthException", "message": "Session has ended."}, "OAuthException", RefreshError),
        ({"code": 403}, "403", RefreshError),
        ({"message": {"message": "x"}}, "x", RefreshError),
        ({"message": ["invalid_grant"]}, "invalid_grant", SignInRequired),
        (["invalid_grant"], "invalid_grant", SignInRequired),
        (42, "42", RefreshError),
        (True, None, RefreshError),
        ("Something went wrong", "Something went wrong", RefreshError),
    ],
)
def test_an_error_may_be_an_object_a_list_or_a_number(said: Any, code: str | None, cls: type[ReauthError]):
    error = error_of(answer({"error": said}, 400))
    assert type(error) is cls
    assert error.error == code
    assert type(error_of({"error": said})) is cls


DEAD = {
    "Fitbit": {"errors": [{"errorType": "invalid_grant", "message": "Refresh token invalid: abc"}], "success": False},
    "HubSpot": {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token", "correlationId": "7"},
    "Keycloak and UAA": {"error": "invalid_token", "error_description": "Invalid token (expired): r"},
    "Reddit": {"message": "Bad Request", "error": 400},
    "Reddit, shorter": {"error": 400},
    "a code": {"code": "invalid_grant"},
    "a code beside a number": {"code": 400, "error_code": "refresh_token_expired"},
    "GraphQL": {"errors": [{"message": "no", "extensions": {}, "code": "INVALID_REFRESH_TOKEN"}]},
    "errors that are words": {"errors": ["invalid_grant"]},
    "the second of two errors": {"errors": [{"code": "x"}, {"code": "invalid_grant"}]},
    "a code in the place of words": {"message": "invalid_grant"},
    "the same, beside a number": {"code": 401, "message": "invalid_token"},
    "the same, beside a code that says little": {"error": "invalid_request", "error_description": "token_expired"},
    "FastAPI": {"detail": "invalid_grant"},
    "FastAPI, an object": {"detail": {"error": "invalid_grant"}},
    "words in the place of a code": {"error": "Invalid refresh token"},
    "Supabase": {"code": 400, "error_code": "refresh_token_not_found", "msg": "Invalid Refresh Token: Not Found"},
    "Supabase, the other": {"code": 400, "error_code": "refresh_token_already_used", "msg": "Already Used"},
    "simplejwt": {"detail": "Token is invalid or expired", "code": "token_not_valid"},
    "a code that is a sentence": {"code": "REFRESH_TOKEN_IS_REVOKED", "message": "Call us."},
}


@pytest.mark.parametrize("body", DEAD.values(), ids=DEAD)
def test_guarantee_6_a_dead_refresh_token_in_other_words_needs_a_sign_in(body: dict[str, Any]):
    error = error_of(answer(body, 400))
    assert type(error) is SignInRequired
    assert "int" not in str(error).split()
    assert "no error code" not in str(error)


@pytest.mark.parametrize("body", [DEAD["Fitbit"], DEAD["HubSpot"], {"ok": False, "error": "invalid_refresh_token"}])
def test_guarantee_6_a_dead_refresh_token_needs_a_sign_in_also_under_200(body: dict[str, Any]):
    assert type(error_of(answer(body, 200))) is SignInRequired
    assert type(error_of(body)) is SignInRequired


WORDS_OF_THE_DEAD = [
    "The refresh token has expired.",
    "refresh token is invalid",
    "Invalid refresh token",
    "Invalid refresh_token",
    "invalid or expired refresh token",
    "The provided refresh token is expired",
    "Refresh token has already been used",
    "Refresh token already used",
    "The refreshToken was revoked",
    "Refresh token 'r1' is no longer valid",
    "Could not decode refresh token",
    "The refresh token cannot be read",
    "Invalid Refresh Token: Already Used",
    "The refresh token is malformed.",
    "refresh token could not be decrypted",
    "The refresh token provided has been revoked by the user",
    "Failed to parse refresh token",
    "Unable to decrypt refresh token",
    "This refresh token has been used before",
    "Refresh token eyJhbGciOiJIUzI1NiJ9xxxxxx.eyJzdWIiOiIxMjM0NTY3ODkw.s1gnature is expired",
]
OTHER_WORDS = [
    "Missing parameter: refresh_token",
    "refresh_token is required",
    "The refresh token grant type is not valid for this client",
    "refresh_token grant is invalid",
    "Invalid scope for refresh token",
    "Invalid client_id",
    "refresh token can only be used by its client",
    "Refresh token used with wrong client",
    "refresh token and client_id mismatch, invalid client",
    "Token is expired",
    "The refresh token is missing or invalid",
    "client certificate expired",
    "Refresh tokens are not enabled",
    "Unsupported parameter refresh_token",
    "Malformed request body: expected refresh_token",
    "",
    None,
]


@pytest.mark.parametrize("words", WORDS_OF_THE_DEAD)
def test_guarantee_6_an_invalid_request_whose_words_say_that_the_refresh_token_is_dead_needs_a_sign_in(words: str):
    for field in ("error_description", "message", "detail"):
        error = error_of(answer({"error": "invalid_request", field: words}, 400))
        assert type(error) is SignInRequired
        assert error.error_description == words


def test_guarantee_6_words_in_a_list_say_that_a_refresh_token_is_dead_as_well():
    error = error_of(answer({"errors": ["Please sign in.", "The refresh token was revoked."]}, 401))
    assert type(error) is SignInRequired
    assert error.error_description == "Please sign in.; The refresh token was revoked."


@pytest.mark.parametrize("code", ["refresh_token_grant_is_invalid", "MISSING_OR_INVALID_REFRESH_TOKEN"])
def test_another_code_that_names_the_refresh_token_is_not_final(code: str):
    assert type(error_of(answer({"code": code}, 400))) is RefreshError


@pytest.mark.parametrize("words", OTHER_WORDS)
def test_an_invalid_request_in_other_words_is_no_dead_refresh_token(words: str | None):
    error = error_of(answer({"error": "invalid_request", "error_description": words}, 400))
    assert type(error) is RefreshError


@pytest.mark.parametrize(
    ("code", "status"),
    [("invalid_client", 400), ("server_error", 400), ("invalid_request", 500), ("invalid_scope", 400)],
)
@pytest.mark.parametrize("words", ["The refresh token is expired", "invalid_grant"])
def test_only_an_invalid_request_is_judged_by_its_words(code: str, status: int, words: str):
    error = error_of(answer({"error": code, "error_description": words}, status))
    assert type(error) is RefreshError


@pytest.mark.parametrize(
    "body",
    [{"error": 400, "message": "redirect_uri is wrong"}, {"error": 404}, {"code": 400, "message": "Bad Request"}],
)
def test_a_number_alone_says_only_for_reddit_that_a_refresh_token_is_dead(body: dict[str, Any]):
    assert type(error_of(answer(body, 400))) is RefreshError


@pytest.mark.parametrize(
    ("words", "cls"),
    [
        ("token request is already being processed", RefreshError),  # Salesforce
        ("Token request is already in progress", RefreshError),
        ("Another refresh of this token is in progress. Try again later.", RefreshError),
        ("Retry later", RefreshError),
        ("The account's deletion is in progress", SignInRequired),
        ("The refresh token expired. Try again.", SignInRequired),
    ],
)
def test_an_invalid_grant_that_is_being_processed_is_tried_again(words: str, cls: type[ReauthError]):
    error = error_of(answer({"error": "invalid_grant", "error_description": words}, 400))
    assert type(error) is cls
    assert error.error == "invalid_grant"


OTHER_FIELDS = {
    "message": ({"message": "Too bad."}, None, "Too bad."),
    "detail": ({"detail": "Not Found"}, None, "Not Found"),
    "FastAPI": ({"detail": [{"loc": ["body"], "msg": "field required"}]}, None, "field required"),
    "Spring": ({"status": 415, "error": "Unsupported Media Type", "path": "/token"}, None, None),
    "Firebase": ({"error": {"code": 400, "message": "Oh no, a sentence"}}, "400", "Oh no, a sentence"),
    "a code and words": ({"code": "LOCKED", "message": "Call us."}, "LOCKED", "Call us."),
    "Supabase": ({"code": 400, "error_code": "bad_json", "msg": "Could not read it"}, "bad_json", "Could not read it"),
    "JSend": ({"status": "error", "message": "No."}, None, "No."),
    "an error that is true": ({"error": True, "message": "No."}, None, "No."),
    "Google": ({"error": {"code": 415, "message": "No.", "status": "UNSUPPORTED_MEDIA_TYPE"}}, None, "No."),
    "a reason in one word": ({"code": "UnsupportedMediaType"}, None, None),
    "nothing of that kind": ({"hello": "world"}, None, None),
}


@pytest.mark.parametrize(("body", "code", "words"), OTHER_FIELDS.values(), ids=OTHER_FIELDS)
def test_the_servers_own_words_are_read_where_they_stand(body: dict[str, Any], code: str | None, words: str | None):
    error = error_of(answer(body, 415))
    assert (error.error, error.error_description) == (code, words)
    if words is not None:
        assert words in str(error)


def test_further_fields_of_an_error_are_on_it_without_those_that_hold_tokens():
    said = {
        "error": "invalid_client",
        "error_description": "AADSTS7000215",
        "error_codes": [7000215],
        "trace_id": "t-1",
        "correlation_id": "c-1",
        "nested": {"id_token": "s3cret", "a": "b\nc"},
        "refresh_token": "s3cret-r",
        "accessToken": "s3cret-a",
        "long": "x" * 10_000,
        **{f"field {number}": number for number in range(1_000)},
    }
    error = error_of(answer(said, 401))
    assert error.extra["trace_id"] == "t-1"
    assert error.extra["correlation_id"] == "c-1"
    assert error.extra["error_codes"] == [7000215]
    assert error.extra["nested"] == {"id_token": "***", "a": "b?c"}
    assert len(error.extra) < 100
    assert len(error.extra["long"]) < 10_000
    assert "error" not in error.extra
    assert "s3cret" not in repr(error.extra)


def test_an_error_that_says_nothing_more_has_no_further_fields():
    assert error_of(answer({"error": "invalid_client"}, 401)).extra == {}
    assert RefreshError("down").extra == {}


URL = "https://user:s3cret@id.example.com:8443/oauth/token?api_key=s3cret#s3cret"
NO_ENDPOINTS = {
    "404": httpx.Response(404),
    "405": httpx.Response(405, json={"detail": "Method Not Allowed"}),
    "404 of Spring": httpx.Response(404, json={"status": 404, "error": "Not Found", "path": "/oauth/token"}),
    "HTML under 200": httpx.Response(200, html="<!doctype html><title>Sign in</title>"),
    "HTML under 403": httpx.Response(403, html="<h1>Forbidden</h1>"),
    "HTML that is called text": httpx.Response(404, text="  <html>"),
    "text under 200": httpx.Response(200, text="hello"),
}


@pytest.mark.parametrize("response", NO_ENDPOINTS.values(), ids=NO_ENDPOINTS)
def test_an_answer_of_no_token_endpoint_names_the_url_without_its_secrets(response: httpx.Response):
    for package in ("httpx", "httpx2"):
        response.request = pytest.importorskip(package).Request("POST", URL)
        error = error_of(response)
        assert type(error) is RefreshError
        assert "https://id.example.com:8443/oauth/token" in str(error)
        assert "Check that the token URL" in str(error)
        assert "s3cret" not in str(error)
        assert error.status_code == response.status_code


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(401, json={"error": "invalid_client"}),
        httpx.Response(503, html="<h1>Busy</h1>"),
        httpx.Response(500),
    ],
)
def test_an_answer_that_a_token_endpoint_may_give_does_not_doubt_the_url(response: httpx.Response):
    response.request = httpx.Request("POST", URL)
    assert "token URL" not in str(error_of(response))


def test_a_login_that_is_refused_is_not_called_a_refresh_token_alone():
    error = error_of(answer({"error": "invalid_grant", "error_description": "Bad credentials"}, 400))
    assert "login" in str(error)
    assert "Bad credentials" in str(error)


@pytest.mark.parametrize("said", [None, "", 0, False, {}, []])
def test_an_error_that_is_empty_is_none(said: Any):
    assert token_with(error=said).access_token == "a"
    assert Token.from_response({"access_token": "a", "error": said}).access_token == "a"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("two\r\nlines", "two??lines"),
        ("\x1b[31mred\x07", "?[31mred?"),
        ("a\u2028b\u202ec\u200b", "a?b?c?"),
        ("\ud800", "?"),
        ("schön 日本 🎉", "schön 日本 🎉"),
        (["a"], "a"),
        (["a\n", {"message": "b"}], "a?; b"),
        ({"a": 1}, '{"a": 1}'),
        ({"message": "a"}, "a"),
        (5, "5"),
        ("", None),
        (None, None),
    ],
)
def test_what_a_server_says_fits_into_one_line_of_a_log(said: Any, shown: str | None):
    error = error_of(answer({"error": "x", "error_description": said, "error_uri": said}, 400))
    assert (error.error_description, error.error_uri) == (shown, shown)
    assert str(error).isprintable()
    assert "\n" not in str(error)


def test_what_a_server_says_is_bounded():
    said = "x" * 1_000_000
    error = error_of(answer({"error": said, "error_description": said, "error_uri": said}, 400))
    assert len(str(error)) < 200_000  # a refresh shortens it further, once no secret can be cut by it
    assert all(len(text or "") < 70_000 for text in (error.error, error.error_description, error.error_uri))


# When to come back.

DATE = "Tue, 14 Nov 2023 22:13:20 GMT"  # 1_700_000_000
LATER = "Tue, 14 Nov 2023 22:15:20 GMT"

RETRY_AFTER = {
    "missing": (None, None),
    "seconds": ("120", 120.0),
    "seconds with blanks": (" 120 ", 120.0),
    "a fraction": ("0.5", 0.5),
    "zero": ("0", 0.0),
    "negative": ("-5", 0.0),
    "a day": ("86400", 86_400.0),
    "more than a day": ("86401", 86_400.0),
    "huge": ("9" * 300, 86_400.0),
    "more digits than that": ("9" * 400, None),
    "a date": (LATER, 120.0),
    "a date that has passed": ("Mon, 13 Nov 2023 22:13:20 GMT", 0.0),
    "a date in eight thousand years": ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
    "a date of RFC 850": ("Tuesday, 14-Nov-23 22:15:20 GMT", 120.0),
    "a date with an offset": ("Wed, 15 Nov 2023 00:15:20 +0200", 120.0),
    "empty": ("", None),
    "garbage": ("soon", None),
    "NaN": ("nan", None),
    "infinity": ("inf", None),
    "with an exponent": ("1e3", None),
    "a list": ("120, 240", None),
    "half a date": ("Tue, 14 Nov", None),
    "a day that is none": ("Tue, 99 Nov 2023 22:15:20 GMT", None),
    "an hour that is none": ("Tue, 14 Nov 2023 99:15:20 GMT", None),
    "an offset that is none": ("Tue, 14 Nov 2023 22:15:20 +9999", None),
}


@pytest.mark.parametrize(("said", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_or_as_a_date(said: str | None, seconds: float | None, status: int):
    headers = {"Date": DATE} if said is None else {"Date": DATE, "Retry-After": said}
    error = error_of(httpx.Response(status, headers=headers))
    assert isinstance(error, RefreshError)
    error.resolve_retry_after(0.0)  # the wall clock does not matter where the server says what it takes for now
    assert error.retry_after == seconds


RATE_LIMITS = {
    "seconds from now": ("17", 17.0),
    "a fraction": ("0.5", 0.5),
    "zero": ("0", 0.0),
    "the most seconds from now, which is a day": ("999999999", 86_400.0),
    "since the epoch": ("1700000120", 120.0),
    "since the epoch, but passed": ("1699999999", 0.0),
    "milliseconds": ("1700000120000", 120.0),
    "garbage": ("soon", None),
    "a structured field": ('"default";t=5', None),
    "empty": ("", None),
}


@pytest.mark.parametrize(("said", "seconds"), RATE_LIMITS.values(), ids=RATE_LIMITS)
@pytest.mark.parametrize("name", ["X-RateLimit-Reset", "RateLimit-Reset", "x-rate-limit-reset"])
@pytest.mark.parametrize("dated", [True, False])
def test_guarantee_6_of_a_429_it_is_read_when_the_rate_limit_ends(
    name: str, said: str, seconds: float | None, *, dated: bool
):
    error = error_of(httpx.Response(429, headers={name: said, **({"Date": DATE} if dated else {})}))
    assert isinstance(error, RefreshError)
    error.resolve_retry_after(1_700_000_000.0)
    assert error.retry_after == seconds


@pytest.mark.parametrize("status", [200, 400, 403, 503])
def test_a_rate_limit_of_another_answer_says_nothing_of_the_next_one(status: int):
    error = error_of(httpx.Response(status, headers={"X-RateLimit-Reset": "17", "RateLimit-Reset": "17"}))
    assert isinstance(error, RefreshError)
    assert error.retry_after is None


def test_retry_after_counts_before_a_rate_limit():
    for said in ("5", "Tue, 14 Nov 2023 22:13:25 GMT"):
        headers = {"Retry-After": said, "X-RateLimit-Reset": "17", "Date": DATE}
        error = error_of(httpx.Response(429, headers=headers))
        assert isinstance(error, RefreshError)
        assert error.retry_after == 5.0


@pytest.mark.parametrize("date", [None, "", "garbage", "0"])
@pytest.mark.parametrize(("wall", "seconds"), [(1_700_000_000.0, 120.0), (1_700_000_500.0, 0.0), (0.0, 86_400.0)])
def test_a_date_without_a_date_beside_it_waits_for_a_clock(date: str | None, wall: float, seconds: float):
    headers = {"Retry-After": LATER} if date is None else {"Retry-After": LATER, "Date": date}
    error = error_of(httpx.Response(503, headers=headers))
    assert isinstance(error, RefreshError)
    assert error.retry_after is None
    error.resolve_retry_after(wall)
    assert error.retry_after == seconds


def test_a_sign_in_is_not_to_be_retried_after_anything():
    error = error_of(answer({"error": "invalid_grant"}, 400, Retry_After="5"))
    assert type(error) is SignInRequired
    assert not hasattr(error, "retry_after")


# Anything at all.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
fields = st.dictionaries(
    st.sampled_from(
        ["access_token", "refresh_token", "expires_in", "expires_at", "token_type", "scope", "error",
         "error_description", "error_uri", "id_token"]
    ),
    json_values | st.sampled_from(["a", "Bearer", "3600", 3600, "2023-11-14T22:13:20Z", "invalid_grant"]),
)  # fmt: skip


@given(fields, st.sampled_from([200, 201, 302, 400, 401, 429, 500]))
def test_any_object_is_a_token_or_one_of_our_errors(body: dict[str, Any], status: int):
    for outcome in (outcome_of(answer(body, status)), outcome_of(body)):
        if isinstance(outcome, Token):
            assert outcome.access_token
            assert outcome.token_type == "Bearer"
        else:
            assert str(outcome).isprintable()


@given(st.binary(), st.sampled_from([JSON, FORM, "text/plain", None]), st.sampled_from([200, 400, 503]))
def test_any_bytes_are_a_token_or_one_of_our_errors(body: bytes, content_type: str | None, status: int):
    outcome = outcome_of(answer(body, status, content_type))
    assert isinstance(outcome, Token) or str(outcome).isprintable()


def retry_after(said: str, **more: str) -> float | None:
    error = error_of(httpx.Response(503, headers={"Retry-After": said, **more}))
    assert isinstance(error, RefreshError)
    error.resolve_retry_after(1_700_000_000.0)
    return error.retry_after


ascii_text = st.text(st.characters(min_codepoint=32, max_codepoint=126))
date_parts = st.sampled_from(["Tue", "14", "Nov", "2023", "22:15:20", "GMT", "+0000", "-", ",", "-9999", "99", ":"])


@given(ascii_text, ascii_text)
def test_any_retry_after_is_read_or_left(said: str, date: str):
    seconds = retry_after(said, Date=date)
    assert seconds is None or 0.0 <= seconds <= 86_400.0


@given(st.lists(date_parts, max_size=8))
def test_anything_like_a_date_is_read_or_left(parts: list[str]):
    seconds = retry_after(" ".join(parts))
    assert seconds is None or 0.0 <= seconds <= 86_400.0
