"""Tests of which requests count as the answer to a sign-in, and of the pages that the browser shows."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from httpx_reauth.signin import page
from httpx_reauth.signin.callback import Answer, Callback, Expected

STATE = "s3cret-state"
HERE = "https://id.example.com"


def expected(**settings) -> Expected:
    return Expected("/callback", STATE, **settings)


def sent(target: str, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def status_of(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


GOOD = f"/callback?code=c0de&state={STATE}"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (sent(GOOD), 200),
        (sent(f"/callback?state={STATE}&code=c0de&iss=x&session_state=1&code2=&lang=de"), 200),
        (sent("/callback?code=c0de&state=wrong"), 400),
        (sent("/callback?code=c0de&state="), 400),
        (sent("/callback?code=c0de"), 400),
        (sent("/callback"), 400),
        (sent(f"/callback?code=c0de&state={STATE}&state={STATE}"), 400),
        (sent(f"/callback?code=a&code=b&state={STATE}"), 400),
        (sent(f"/callback?code=c0de&state={STATE}x"), 400),
        (sent(f"/callback?code=c0de&state={STATE[:-1]}"), 400),
        (sent(f"/callback?code=c0de&STATE={STATE}"), 400),
        (sent(f"/callback?code=c0de&state={STATE}" + "&a=1" * 200), 400),
        (sent("/callback?code=c0de&state=%ED%A0%80%FF"), 400),
        (sent(f"/callback/?code=c0de&state={STATE}"), 404),
        (sent(f"/?code=c0de&state={STATE}"), 404),
        (sent(f"http://127.0.0.1{GOOD}"), 404),
        (sent("/favicon.ico"), 404),
        (sent("/"), 404),
        (sent(GOOD, "HEAD"), 404),
        (sent(GOOD, "POST"), 404),
        (sent(GOOD, "OPTIONS"), 404),
        (sent("127.0.0.1:80", "CONNECT"), 404),
        (sent(GOOD, "get"), 400),
        (sent(GOOD).replace(b"HTTP/1.1", b"HTTP/2"), 400),
        (sent(GOOD).replace(b" HTTP/1.1", b""), 400),
        (sent(GOOD).replace(b"GET ", b"GET  "), 400),
        (b"\x16\x03\x01\x02\x00\x01\n\n", 400),
        (b"\r\n\r\n", 400),
        (b"\xff\xfe\n\n", 400),
    ],
)
def test_one_request_is_the_answer_and_all_others_get_400_or_404(request_, status):
    callback = Callback(expected())
    assert status_of(callback.reply(request_)) == status
    assert (callback.answer is not None) is (status == 200)


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_a_request_is_read_whatever_ends_its_lines(line_end):
    callback = Callback(expected())
    callback.reply(f"GET {GOOD} HTTP/1.0{line_end}{line_end}".encode())
    assert callback.answer == Answer(code="c0de")


def test_the_wait_goes_on_after_an_answer_with_a_wrong_state():
    callback = Callback(expected())
    assert status_of(callback.reply(sent("/callback?code=forged&state=guessed"))) == 400
    assert status_of(callback.reply(sent(GOOD))) == 200
    assert callback.answer == Answer(code="c0de")


def test_a_second_answer_is_not_accepted_and_changes_nothing():
    callback = Callback(expected())
    callback.reply(sent(GOOD))
    assert status_of(callback.reply(sent(f"/callback?code=other&state={STATE}"))) == 400
    assert callback.answer == Answer(code="c0de")


@pytest.mark.parametrize(
    ("settings", "iss", "is_wrong"),
    [
        ({"issuer": HERE}, HERE, False),
        ({"issuer": HERE}, None, False),
        ({"issuer": HERE}, "https://other.example.com", True),
        ({"issuer": HERE}, f"{HERE}/", True),
        ({"issuer": HERE}, "", True),
        ({"issuer": HERE, "iss_required": True}, HERE, False),
        ({"issuer": HERE, "iss_required": True}, None, True),
        ({}, "https://anybody.example.com", False),
        ({}, None, False),
    ],
)
def test_the_answer_comes_from_the_server_that_was_asked(settings, iss, is_wrong):
    callback = Callback(expected(**settings))
    reply = callback.reply(sent(GOOD if iss is None else f"{GOOD}&iss={iss}"))
    assert callback.answer is not None
    assert callback.answer.has_wrong_issuer is is_wrong
    assert callback.answer.is_good is not is_wrong
    assert status_of(reply) == (400 if is_wrong else 200)


@pytest.mark.parametrize("error", ["access_denied", "server_error", "login_required"])
def test_a_refusal_is_an_answer_too(error):
    callback = Callback(expected())
    reply = callback.reply(sent(f"/callback?error={error}&error_description=No%0D%0Away&state={STATE}"))
    assert status_of(reply) == 200
    assert callback.answer == Answer(error=error, error_description="No??way")
    assert not callback.answer.is_good
    assert b"was not completed" in reply


def test_an_answer_with_neither_code_nor_error_is_not_good():
    callback = Callback(expected())
    callback.reply(sent(f"/callback?state={STATE}"))
    assert callback.answer == Answer()
    assert not callback.answer.is_good


@pytest.mark.parametrize(
    "pasted",
    [
        f"http://127.0.0.1:4711{GOOD}",
        f"  'http://127.0.0.1:4711{GOOD}'\n",
        f"<http://127.0.0.1:4711{GOOD}>",
        f"http://127.0.0.1:4711/call\r\n  back?code=c0\nde&state={STATE}",
        f"\x1b[200~http://127.0.0.1:4711{GOOD}\x1b[201~",
        f"https://localhost{GOOD}#",
        GOOD,
        GOOD.partition("?")[2],
        "?" + GOOD.partition("?")[2],
    ],
)
def test_the_pasted_address_of_the_last_page_is_the_answer_however_it_was_copied(pasted):
    assert expected().find_in_pasted(pasted) == Answer(code="c0de")


@pytest.mark.parametrize(
    "pasted",
    ["", "yes", "c0de", "http://[", f"http://127.0.0.1/callback?code=c0de&state={STATE}2", "\udcff?state=\udcff"],
)
def test_other_pasted_text_is_not_an_answer(pasted):
    assert expected().find_in_pasted(pasted) is None


def test_guarantee_11_no_repr_shows_a_code_or_a_state():
    callback = Callback(expected())
    callback.reply(sent(GOOD))
    assert "c0de" not in repr(callback.answer)
    assert STATE not in repr(callback.expected)


# The pages.

PAGES = {
    "received": page.RECEIVED,
    "refused": page.REFUSED,
    "not ours": page.NOT_OURS,
    "not found": page.NOT_FOUND,
    "not HTTP": page.NOT_HTTP,
}


class Page(HTMLParser):
    """Collects what a page asks a browser to load, and the words that the page shows."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(html.decode())

    def handle_starttag(self, _, attrs):
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("html", PAGES.values(), ids=PAGES)
def test_a_page_loads_nothing_and_is_made_for_phones_and_for_the_dark(html):
    assert Page(html).loads == ["data:,"]
    assert not re.search(rb"url\(|@import|https?:", html)
    assert b'name="viewport" content="width=device-width' in html
    assert b"color-scheme: light dark" in html


def test_the_page_after_an_answer_says_that_the_window_can_be_closed():
    for html in (page.RECEIVED, page.REFUSED, page.NOT_OURS):
        assert "close this window" in " ".join(Page(html).words)


def test_guarantee_11_no_reply_repeats_what_was_sent():
    for target in (GOOD, "/callback?code=c0de&state=wr0ng", "/c0de", "/<b>"):
        callback = Callback(expected())
        reply = callback.reply(sent(target))
        for secret in (b"c0de", STATE.encode(), b"wr0ng", b"<b>"):
            assert secret not in reply


def test_a_reply_is_whole_closes_the_connection_and_is_kept_by_nobody():
    head, _, body = Callback(expected()).reply(sent(GOOD)).partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert int(fields["Content-Length"]) == len(body)
    assert fields["Connection"] == "close"
    assert fields["Cache-Control"] == "no-store"
    assert fields["Referrer-Policy"] == "no-referrer"
    assert fields["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "unsafe" not in fields["Content-Security-Policy"]


def test_head_gets_no_body():
    head, _, body = Callback(expected()).reply(sent("/", "HEAD")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert body == b""
