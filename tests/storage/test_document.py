"""Tests of the document in which a token is written, and of the errors for what cannot be read."""

from __future__ import annotations

import json
import pickle
import sys
import time

import pytest

from httpx_reauth import StorageError, Token
from httpx_reauth.storage import document as _document

TOKEN = Token("a", refresh_token="r", expires_in=60, expires_at=1000.5, scope="x y", extra={"id_token": "i"})


def test_the_document_has_a_version_the_absolute_end_and_every_field():
    assert json.loads(_document.write(TOKEN, {})) == {
        "format": "httpx_reauth token",
        "version": 1,
        "access_token": "a",
        "refresh_token": "r",
        "expires_in": 60,
        "expires_at": 1000.5,
        "token_type": "Bearer",
        "scope": "x y",
        "extra": {"id_token": "i"},
    }


def test_it_is_written_in_ascii():
    text = _document.write(Token("a", refresh_token="ключ\u2028🔑", extra={"é": "\ud800"}), {})
    assert text.isascii()
    assert "\n" not in text
    assert _document.read(text, "x").token == Token("a", refresh_token="ключ\u2028🔑", extra={"é": "\ud800"})


def test_unknown_fields_are_kept():
    text = json.dumps({**json.loads(_document.write(TOKEN, {})), "note": {"by": "somebody"}})
    document = _document.read(text, "x")
    assert document.unknown == {"note": {"by": "somebody"}}
    assert json.loads(_document.write(Token("b"), document.unknown))["note"] == {"by": "somebody"}


def test_unknown_fields_never_hide_those_of_the_token():
    text = _document.write(Token("b"), {"access_token": "other", "version": 7, "format": "other"})
    assert _document.read(text, "x").token == Token("b")


def test_a_lifetime_without_an_end_is_counted_from_when_it_is_written():
    before = time.time()
    token = _document.read(_document.write(Token("a", expires_in=60), {}), "x").token
    assert token.expires_in == 60
    assert before + 60 <= token.expires_at <= time.time() + 60


def test_signed_out_is_no_token():
    assert _document.read(_document.write_signed_out(), "x") == _document.Document()


@pytest.mark.parametrize("extra", [{"x": object()}, {"x": {1, 2}}, {("a",): 1}])
def test_values_that_json_cannot_represent_cannot_be_saved(extra):
    with pytest.raises(StorageError, match="JSON"):
        _document.write(Token("a", extra=extra), {})


def test_fields_that_contain_themselves_cannot_be_saved():
    nested: list[object] = []
    nested.append(nested)
    with pytest.raises(StorageError, match="JSON"):
        _document.write(Token("a", extra={"x": nested}), {})


def changed(**changes: object) -> str:
    return json.dumps({**json.loads(_document.write(TOKEN, {})), **changes})


def without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(changed()).items() if key != name})


REFUSED = {
    "cut": changed()[:-10],
    "not text": b"\xff\xfe\x00secret",
    "deep": "[" * 100_000,
    "no object": "[1, 2]",
    "null": "null",
    "another's": '{"access_token": "a", "refresh_token": "r"}',
    "another's format": changed(format="other"),
    "no format": without("format"),
    "no version": without("version"),
    "version is text": changed(version="1"),
    "version is a list": changed(version=[1]),
    "version 0": changed(version=0),
    "no access token": without("access_token"),
    "no end": without("expires_at"),
    "access token is a number": changed(access_token=5),
    "access token has a line break": changed(access_token="secret\n"),
    "refresh token has a control character": changed(refresh_token="secret\x00"),
    "end is text": changed(expires_at="1000"),
    "end is no number": changed(expires_at=float("nan")),
    "extra is a list": changed(extra=["secret"]),
    "extra is text": changed(extra="secret"),
    "type is no word": changed(token_type="two words"),
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_damaged_or_foreign_is_a_clear_error_without_a_secret(text):
    with pytest.raises(
        StorageError,
        match=r"^the file holds no token that can be read: .* left as it is\.( Give the storage another [^\n]*)?$",
    ) as caught:
        _document.read(text, "the file")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None  # the cause would hold the text, and so would the context:
    assert caught.value.__context__ is sys.exc_info()[1]  # the tests may run while another error is handled


@pytest.mark.parametrize("text", ["", b"", "\n", b" \r\n"])
def test_an_empty_document_is_no_token(text):
    assert _document.read(text, "x") == _document.Document()
    assert not _document.is_damaged(text)


DAMAGED = {
    "cut": changed()[:-10],
    "not text": b"\xff\xfe\x00",
    "zeros": b"\x00" * 300,
    "no object": "[1, 2]",
    "null": "null",
    "nothing in it": "{}",
    "version 0": changed(version=0),
    "no access token": without("access_token"),
    "access token is a number": changed(access_token=5),
}
FOREIGN = {
    "another's": '{"access_token": "a", "refresh_token": "r"}',
    "another's format": changed(format="other"),
    "a newer version": changed(version=2),
    "too long": b"x" * (_document.LARGEST + 1),
    "no text": 7,
}


@pytest.mark.parametrize(
    ("text", "is_damaged"),
    [(text, True) for text in DAMAGED.values()] + [(text, False) for text in FOREIGN.values()],
    ids=[*DAMAGED, *FOREIGN],
)
def test_the_way_out_is_named_for_what_is_damaged_and_not_for_what_another_program_may_want_to_read(text, is_damaged):
    with pytest.raises(StorageError) as caught:
        _document.read(text, "the file", "token.json.damaged")
    assert ("token.json.damaged" in str(caught.value)) is is_damaged is _document.is_damaged(text)


def test_the_error_for_a_document_of_a_newer_version_says_so():
    with pytest.raises(StorageError, match=r"newer httpx-reauth .*version 2.* upgrade"):
        _document.read(changed(version=2, access_token={"in": "another shape"}), "x")


def test_a_document_shows_no_secret_and_is_not_pickled():
    document = _document.read(changed(refresh_token="secret"), "x")
    assert "secret" not in repr(document)
    with pytest.raises(TypeError):
        pickle.dumps(document)


def nested(levels: int) -> object:
    value: object = 1
    for number in range(levels):
        value = [value] if number % 2 else {"in": value}
    return value


def test_what_is_too_long_or_too_deep_to_be_read_again_is_not_written():
    long = Token("x" * (_document.LARGEST - 300))
    assert _document.read(_document.write(long, {}), "x").token == long
    deep = Token("a", extra={"in": nested(97)})
    assert _document.read(_document.write(deep, {}), "x").token == deep
    for token in (Token("x" * _document.LARGEST), Token("a", extra={"in": nested(98)})):
        with pytest.raises(StorageError, match=r"cannot be saved: it is longer than 1048576 bytes, or .* 100 levels"):
            _document.write(token, {})


@pytest.mark.parametrize("found", [None, 7, ["a list"]])
def test_a_document_that_is_not_text_is_an_error(found):
    with pytest.raises(StorageError, match="x holds no token that can be read: it is something else"):
        _document.read(found, "x")
