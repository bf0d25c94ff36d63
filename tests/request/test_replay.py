"""Tests of bodies that can be sent again. If it is not known that a body can be sent again, it is not."""

from __future__ import annotations

import io
from types import SimpleNamespace

import httpx
import pytest

from httpx_reauth._request.exchange import is_replayable

FIELD, NO_FILE = SimpleNamespace(file=io.BytesIO(b"again")), SimpleNamespace()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (httpx.ByteStream(b"again"), True),
        (SimpleNamespace(boundary=b"x", fields=[FIELD, NO_FILE]), True),
        (SimpleNamespace(boundary=b"x", fields=[FIELD, SimpleNamespace(file=iter([b"once"]))]), False),
        (SimpleNamespace(boundary=b"x", fields=(FIELD,)), False),
        (SimpleNamespace(boundary=b"x"), False),
        (SimpleNamespace(fields=[FIELD]), False),
        (iter([b"once"]), False),
        (None, False),
    ],
)
def test_a_body_can_be_sent_again_if_it_is_bytes_or_a_form_of_such(stream: object, *, expected: bool):
    assert is_replayable(stream, httpx.ByteStream) is expected
