"""Tests of `WWW-Authenticate`: how challenges are parsed, and for which errors a new token would not help."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_reauth._request.challenges import Challenge, parse_challenges, would_refuse_another


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["Bearer"], [Challenge("bearer", {})]),
        (["Negotiate, Basic"], [Challenge("negotiate", {}), Challenge("basic", {})]),
        (['Bearer realm="api"'], [Challenge("bearer", {"realm": "api"})]),
        (["BEARER Realm=api , ERROR = a.b"], [Challenge("bearer", {"realm": "api", "error": "a.b"})]),
        (['Bearer realm="a, Basic b=\\"c\\" \\\\"'], [Challenge("bearer", {"realm": 'a, Basic b="c" \\'})]),
        (['Bearer realm="",, error="x"'], [Challenge("bearer", {"realm": "", "error": "x"})]),
        (["Negotiate oYG2=="], [Challenge("negotiate", {}, "oYG2==")]),
        (
            ['Negotiate oYG2= , Bearer error="x"'],
            [Challenge("negotiate", {}, "oYG2="), Challenge("bearer", {"error": "x"})],
        ),
        (
            ['Basic realm="a", Bearer realm="b", error=x', 'DPoP algs="ES256"'],
            [
                Challenge("basic", {"realm": "a"}),
                Challenge("bearer", {"realm": "b", "error": "x"}),
                Challenge("dpop", {"algs": "ES256"}),
            ],
        ),
        # A field that begins with a parameter continues the list of the field before (RFC 9110 section 5.3).
        (['Bearer realm="a"', 'error="x"'], [Challenge("bearer", {"realm": "a", "error": "x"})]),
        (["Bearer error=x, error=y"], [Challenge("bearer", {"error": "x"})]),
        # Fields that real servers send.
        (['error="x"'], [Challenge("", {"error": "x"})]),
        (['Bearer realm="a" error="x"'], [Challenge("bearer", {"realm": "a", "error": "x"})]),
        (['Bearer realm="a"; error="x"'], [Challenge("bearer", {"realm": "a", "error": "x"})]),
        (['Bearer scope=a:b, error="x"'], [Challenge("bearer", {"scope": "a:b", "error": "x"})]),
        (['Bearer uri=https://x/?a=b, error="x"'], [Challenge("bearer", {"uri": "https://x/?a=b", "error": "x"})]),
        (['Bearer error="x'], [Challenge("bearer", {"error": "x"})]),
        (['Bearer error="x\\'], [Challenge("bearer", {"error": "x"})]),
        (['Bearer error="x', "Basic a=b"], [Challenge("bearer", {"error": "x"}), Challenge("basic", {"a": "b"})]),
        (['Bearer "nothing" {} error="x"'], [Challenge("bearer", {"error": "x"})]),
    ],
    ids=str,
)  # fmt: skip
def test_challenges_are_read_as_the_rfc_has_them_and_as_servers_write_them(
    fields: list[str], expected: list[Challenge]
):
    assert parse_challenges(fields) == expected


WORD = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=8)
BLANKS = st.text(" \t", max_size=2)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12)
TOKEN68 = st.builds(
    lambda text, padding: text + "=" * padding,
    st.text(string.ascii_letters + string.digits + "-._~+/", min_size=1, max_size=12),
    st.integers(0, 2),
)
CHALLENGES = st.lists(
    st.one_of(
        st.tuples(WORD.map(str.lower), st.dictionaries(WORD.map(str.lower), VALUE, max_size=3), st.none()),
        st.tuples(WORD.map(str.lower), st.just({}), TOKEN68),
    ).map(lambda parts: Challenge(*parts)),
    max_size=4,
)


@given(challenges=CHALLENGES, data=st.data())
def test_challenges_that_the_grammar_writes_are_read_back(challenges: list[Challenge], data: st.DataObject):
    """The test varies case, blanks, extra commas, needless backslashes, and quoted strings where words would do."""

    def draw(strategy: st.SearchStrategy[Any]) -> Any:
        return data.draw(strategy)

    def case(text: str) -> str:
        return draw(st.sampled_from([text, text.upper()]))

    def value(text: str) -> str:
        if text and set(text) <= set(string.ascii_letters + string.digits + "-._~") and draw(st.booleans()):
            return text
        needless = draw(st.sampled_from(["", text[:1]]))
        return '"' + "".join("\\" + one if one in f'"\\{needless}' else one for one in text) + '"'

    def comma() -> str:
        return draw(BLANKS) + "," * draw(st.integers(1, 2)) + draw(BLANKS)

    fields = [""]
    for one in challenges:
        written = [f"{case(name)}{draw(BLANKS)}={draw(BLANKS)}{value(text)}" for name, text in one.parameters.items()]
        blank = " " if written or one.token68 else ""
        text = case(one.scheme) + blank + (one.token68 or "")
        for number, parameter in enumerate(written):
            text += (comma() if number else "") + parameter
        if fields[-1] and draw(st.booleans()):
            fields.append(text)
        else:
            fields[-1] += (comma() if fields[-1] else "") + text
    assert parse_challenges(fields) == challenges


@given(st.lists(st.text(max_size=40), max_size=3))
def test_nothing_that_a_server_sends_is_an_error(fields: list[str]):
    for one in parse_challenges(fields):
        assert one.scheme == one.scheme.lower()
        assert all(isinstance(value, str) for value in one.parameters.values())
    assert would_refuse_another(fields, "Bearer") in {True, False}


@pytest.mark.parametrize("end", ["", "(", "=", '"'])
@pytest.mark.parametrize(
    "text", ['"', "\\", "a", "a=", "a =", "=", " ", ", ", 'a="\\', "a;", "a!(", "\u00e4", "Bearer a=b,"]
)
def test_a_field_of_a_hundred_thousand_characters_is_read_in_one_pass(text: str, end: str):
    """A quadratic pattern would need minutes for some of these."""
    assert len(parse_challenges(["Bearer " + text * 100_000 + end])) <= 100_001


NEVER = ["insufficient_scope", "insufficient_user_authentication", "use_dpop_nonce"]


@pytest.mark.parametrize("error", NEVER)
@pytest.mark.parametrize(
    "field",
    [
        'Bearer error="{}"',
        "bearer ERROR={}",
        'Basic realm="x", Bearer realm="y", error="{}", scope="a b"',
        'Negotiate abc==, Bearer error = "{}"',
        'DPoP error="{}", algs="ES256 PS256"',
        'Bearer realm="a", DPoP error="{}"',
        'Bearer error_description="a \\"quoted\\", description", error="{}"',
        'Bearer error="{}", DPoP error="invalid_token"',
        'error="{}"',
    ],
)
def test_three_errors_say_that_another_token_would_be_refused_as_well(field: str, error: str):
    assert would_refuse_another([field.format(error)], "Bearer")
    assert would_refuse_another(["Basic realm=x", field.format(error)], "bearer")


@pytest.mark.parametrize("error", NEVER)
@pytest.mark.parametrize(
    "field",
    [
        "Bearer",
        'Bearer error="invalid_token"',
        'Bearer error="invalid_token", error_description="not {}"',
        'Bearer realm="error={}"',
        'Bearer realm="a, Bearer error=\\"{}\\""',
        "{}",
        "Negotiate {}",
        'Bearer xerror="{}"',
        'Bearer error="{} "',
        'Bearer error="invalid_token", DPoP error="{}"',
        'DPoP error="{}", Bearer error="invalid_token"',
    ],
)
def test_a_challenge_that_only_looks_like_one_of_the_three_errors_does_not_count(field: str, error: str):
    assert not would_refuse_another([field.format(error)], "Bearer")
