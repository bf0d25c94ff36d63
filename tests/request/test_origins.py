"""Tests of origins: how they are parsed and formatted, and which two are the same place for a redirect."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from httpx_reauth._request.origins import Origin, format_origin, is_same_place, origin_of, parse_origins

PLAIN, SECURE = ("http", "api.test", None), ("https", "api.test", None)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (SECURE, SECURE, True),
        (("https", "api.test", 8443), ("https", "api.test", 8443), True),
        (PLAIN, SECURE, True),  # a redirect from http to https
        (("http", "api.test", 80), ("https", "api.test", 443), True),
        (("http", "api.test", 80), SECURE, True),
        (PLAIN, ("https", "api.test", 443), True),
        (SECURE, PLAIN, False),
        (PLAIN, ("https", "other.test", None), False),
        (("http", "api.test", 8080), SECURE, False),
        (PLAIN, ("https", "api.test", 8443), False),
        (("http", "api.test", 81), SECURE, False),
        (PLAIN, ("https", "api.test", 444), False),
        (("ws", "api.test", 80), SECURE, False),
        (PLAIN, ("wss", "api.test", 443), False),
        (SECURE, ("https", "api.test", 8443), False),
        (("ws", "api.test", None), ("wss", "api.test", None), False),
    ],
)
def test_guarantee_9_a_redirect_keeps_the_token_at_the_same_origin_and_up_to_https(
    one: Origin, other: Origin, *, is_same: bool
):
    assert is_same_place(one, other) is is_same


def test_the_highest_port_is_a_valid_port():
    origins = parse_origins(["https://api.test:65535", "https://api.test"], httpx.URL)
    assert list(origins.listed or ()) == [("https", "api.test", 65_535), SECURE]


def test_guarantee_11_what_stands_before_a_host_is_not_shown_though_it_has_an_at_sign():
    with pytest.raises(ValueError, match=r"^'api\.test' is not an origin"):
        parse_origins(["https://user:s3@cret@api.test"], httpx.URL)


def test_whatever_a_parser_raises_becomes_the_same_value_error():
    def parse(_: str) -> Any:
        raise RecursionError

    with pytest.raises(ValueError, match="is not an origin"):
        parse_origins(["https://api.test"], parse)


@pytest.mark.parametrize(
    ("host", "expected"), [("2001:DB8:0::1", "2001:db8::1"), ("a:b", "a:b"), ("API.test", "API.test")]
)
def test_an_ip_address_gets_one_spelling_and_other_hosts_stay_as_they_are(host: str, expected: str):
    url: Any = SimpleNamespace(scheme="https", raw_host=host.encode(), port=8443)
    assert origin_of(url) == ("https", expected, 8443)


def test_origins_are_formatted():
    assert format_origin(("https", "2001:db8::1", 8443)) == "https://[2001:db8::1]:8443"
    assert format_origin(PLAIN) == "http://api.test"


def test_what_the_hot_path_compares_is_the_first_origin_that_is_no_pattern():
    origins = parse_origins(["https://*.api.test", "https://api.test:8443", "https://other.test"], httpx.URL)
    assert (origins.scheme, origins.host, origins.port) == ("https", "api.test", 8443)
    assert parse_origins(["https://*.api.test"], httpx.URL).scheme == ""
