"""Tests of an issuer's document: where it is looked for, which issuer it must name, and which fields are used."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from httpx_reauth import InsecureOrigin, RefreshError
from httpx_reauth.oauth import Issuer, MetadataRequest
from httpx_reauth.oauth.issuer import ServerMetadata, choose_client_auth
from httpx_reauth.testing import ManualClock

URL = "https://id.example.com/realms/a"
OAUTH = "https://id.example.com/.well-known/oauth-authorization-server/realms/a"
OPENID_INSIDE = "https://id.example.com/.well-known/openid-configuration/realms/a"
OPENID_BEHIND = "https://id.example.com/realms/a/.well-known/openid-configuration"
DAY = 24 * 3600


def document(**fields: Any) -> dict[str, Any]:
    return {"issuer": URL, "token_endpoint": f"{URL}/token"} | fields


def answer(fields: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=fields)


NOT_FOUND = httpx.Response(404, html="<h1>Not found</h1>")


class Web:
    """Who answers: by URL; everything else is 404."""

    def __init__(self, pages: Mapping[str, httpx.Response | Exception]) -> None:
        self.pages = dict(pages)
        self.asked: list[str] = []

    def discover(self, issuer: Issuer, clock: ManualClock | None = None, *, allow_http: bool = False) -> ServerMetadata:
        flow = issuer.discover(allow_http=allow_http, clock=clock or ManualClock())
        step: Callable[[], MetadataRequest] = lambda: next(flow)  # noqa: E731 - replaced below
        try:
            while True:
                request = step()
                self.asked.append(request.url)
                page = self.pages.get(request.url, NOT_FOUND)
                if isinstance(page, Exception):
                    step = lambda error=page: flow.throw(error)  # noqa: E731
                else:
                    step = lambda response=page: flow.send(response)  # noqa: E731
        except StopIteration as stop:
            return stop.value


def test_a_document_is_looked_for_with_the_path_inserted_then_at_openid_connects_two_places():
    web = Web({OPENID_BEHIND: answer(document())})
    assert web.discover(Issuer(URL)).token_endpoint == f"{URL}/token"
    assert web.asked == [OAUTH, OPENID_INSIDE, OPENID_BEHIND]


@pytest.mark.parametrize("issuer", ["https://id.example.com", "https://id.example.com/"])
def test_without_a_path_there_are_two_places(issuer):
    web = Web({})
    with pytest.raises(RefreshError):
        web.discover(Issuer(issuer))
    assert web.asked == [
        "https://id.example.com/.well-known/oauth-authorization-server",
        "https://id.example.com/.well-known/openid-configuration",
    ]


def test_a_slash_at_the_end_of_a_path_is_not_part_of_the_place():
    web = Web({OAUTH: answer(document(issuer=f"{URL}/"))})
    assert web.discover(Issuer(f"{URL}/")).issuer == f"{URL}/"
    assert web.asked == [OAUTH]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("https://id.example.com", "https://id.example.com/"),
        ("https://id.example.com/", "https://id.example.com"),
        ("https://id.example.com:8443", "https://id.example.com:8443/"),
    ],
)
def test_one_slash_at_the_root_is_forgiven_and_the_servers_own_spelling_is_kept(given, found):
    place = f"{given.rstrip('/')}/.well-known/oauth-authorization-server"
    web = Web({place: answer({"issuer": found, "token_endpoint": "https://id.example.com/token"})})
    assert web.discover(Issuer(given)).issuer == found


@pytest.mark.parametrize(
    "found",
    [
        f"{URL}/",
        "https://id.example.com",
        "https://id.example.com//",
        "https://ID.example.com/realms/a",
        "https://id.example.com:443/realms/a",
        "http://id.example.com/realms/a",
        "https://evil.example/realms/a",
        "https://\u0456d.example.com/realms/a",  # the first letter is another one
        None,
        ["https://id.example.com/realms/a"],
    ],
)
def test_a_document_of_another_issuer_is_not_used_and_the_error_says_what_was_looked_for_and_where(found):
    page = answer(document(issuer=found))
    web = Web({OAUTH: page, OPENID_INSIDE: page, OPENID_BEHIND: page})
    with pytest.raises(RefreshError) as caught:
        web.discover(Issuer(URL))
    for place in (URL, OAUTH, OPENID_INSIDE, OPENID_BEHIND):
        assert place in str(caught.value)
    assert str(caught.value).isascii()
    if isinstance(found, str):
        assert f"issuer={found!a}" in str(caught.value)  # the way out, if that is its name


def test_a_templated_issuer_is_named_by_keyword():
    url = "https://login.microsoftonline.com/common/v2.0"
    template = "https://login.microsoftonline.com/{tenantid}/v2.0"
    web = Web({f"{url}/.well-known/openid-configuration": answer(document(issuer=template))})
    assert web.discover(Issuer(url, issuer=template)).issuer == template
    with pytest.raises(RefreshError):
        web.discover(Issuer(url))


BAD: list[tuple[str, httpx.Response]] = [
    ("404", NOT_FOUND),
    ("500", httpx.Response(500)),
    ("text/html", httpx.Response(200, html="<!doctype html>")),
    ("no content type", httpx.Response(200, content=b"")),
    ("text/caf", httpx.Response(200, headers={"Content-Type": b"text/caf\xc3\xa9"})),
    ("JSON", httpx.Response(200, json=["issuer", URL])),
    ("JSON", httpx.Response(200, content=b'{"issuer": ' + b"[" * 100_000)),
    ("redirect", httpx.Response(302, headers={"Location": "https://evil.example/"})),
    ("204", httpx.Response(204)),
    ("token_endpoint", answer(document(token_endpoint=["https://id.example.com/token"]))),
    ("token_endpoint", answer(document(token_endpoint="/token"))),
    ("revocation_endpoint", answer(document(revocation_endpoint="ftp://id.example.com/revoke"))),
    ("mtls_endpoint_aliases.token_endpoint", answer(document(mtls_endpoint_aliases={"token_endpoint": "mtls"}))),
]


@pytest.mark.parametrize(("says", "page"), BAD)
def test_what_is_no_document_is_said_with_the_place_at_which_it_was(says, page):
    web = Web({OAUTH: page, OPENID_INSIDE: page, OPENID_BEHIND: page})
    with pytest.raises(RefreshError) as caught:
        web.discover(Issuer(URL))
    assert says in str(caught.value)
    assert str(caught.value).isascii()
    assert "Issuer.of" in str(caught.value)
    assert web.asked == [OAUTH, OPENID_INSIDE, OPENID_BEHIND]


@pytest.mark.parametrize(("says", "page"), BAD)
def test_what_is_no_document_at_the_first_place_does_not_hide_the_one_at_the_last(says, page):
    web = Web({OAUTH: page, OPENID_INSIDE: page, OPENID_BEHIND: answer(document())})
    assert web.discover(Issuer(URL)).place == OPENID_BEHIND


@pytest.mark.parametrize(
    "fields",
    [
        {"token_endpoint": "http://id.example.com/token"},
        {"revocation_endpoint": "http://id.example.com/revoke"},
        {"mtls_endpoint_aliases": {"token_endpoint": "http://id.example.com/token"}},
    ],
)
def test_an_endpoint_on_plain_http_is_refused_unless_that_was_allowed(fields):
    web = Web({OAUTH: answer(document(**fields))})
    with pytest.raises(InsecureOrigin) as caught:
        web.discover(Issuer(URL))
    for said in (OAUTH, *fields, "http://id.example.com", "allow_http"):
        assert said in str(caught.value)
    assert web.discover(Issuer(URL), allow_http=True).issuer == URL


@pytest.mark.parametrize("absent", ["", None])
def test_an_endpoint_that_is_empty_is_none(absent):
    fields = {"revocation_endpoint": absent, "mtls_endpoint_aliases": {"token_endpoint": absent}}
    found = Web({OAUTH: answer(document(**fields))}).discover(Issuer(URL))
    assert found.endpoint("token_endpoint", mtls=True) == f"{URL}/token"
    with pytest.raises(RefreshError, match="no revocation_endpoint"):
        found.endpoint("revocation_endpoint")


def test_an_endpoint_on_this_machine_may_be_plain_http():
    url = "http://127.0.0.1:8080"
    page = answer({"issuer": url, "token_endpoint": f"{url}/token"})
    assert Web({f"{url}/.well-known/oauth-authorization-server": page}).discover(Issuer(url)).token_endpoint


def test_what_is_given_by_keyword_wins():
    page = document(
        token_endpoint="http://id.example.com/token",  # would be refused
        revocation_endpoint=f"{URL}/revoke",
        mtls_endpoint_aliases={"token_endpoint": "https://mtls.example.com/token"},
    )
    found = Web({OAUTH: answer(page)}).discover(Issuer(URL, token_endpoint="https://id.example.com/mine"))
    assert found.token_endpoint == found.endpoint("token_endpoint", mtls=True) == "https://id.example.com/mine"
    assert found.revocation_endpoint == f"{URL}/revoke"


def test_the_whole_document_is_taken():
    page = document(
        authorization_endpoint=f"{URL}/auth",
        device_authorization_endpoint=f"{URL}/device",
        revocation_endpoint=f"{URL}/revoke",
        mtls_endpoint_aliases={"token_endpoint": "https://mtls.example.com/token", "jwks_uri": 3},
        token_endpoint_auth_methods_supported=["private_key_jwt", 1],
        scopes_supported=["openid", "offline_access"],
        authorization_response_iss_parameter_supported=True,
    )
    assert Web({OAUTH: answer(page)}).discover(Issuer(URL)) == ServerMetadata(
        issuer=URL,
        token_endpoint=f"{URL}/token",
        authorization_endpoint=f"{URL}/auth",
        device_authorization_endpoint=f"{URL}/device",
        revocation_endpoint=f"{URL}/revoke",
        mtls_endpoint_aliases={"token_endpoint": "https://mtls.example.com/token"},
        token_endpoint_auth_methods_supported=("private_key_jwt",),
        scopes_supported=("openid", "offline_access"),
        authorization_response_iss_parameter_supported=True,
        place=OAUTH,
    )


def test_an_endpoint_that_the_server_has_not_is_said_with_the_keyword_that_would_give_it():
    found = Web({OAUTH: answer(document())}).discover(Issuer(URL))
    with pytest.raises(RefreshError, match="device_authorization_endpoint") as caught:
        found.endpoint("device_authorization_endpoint")
    assert OAUTH in str(caught.value)
    assert found.endpoint("token_endpoint", mtls=True) == f"{URL}/token"  # no alias, the usual one


def test_given_endpoints_are_looked_up_nowhere():
    issuer = Issuer.of(token_endpoint=f"{URL}/token", scopes_supported=["a"])
    web = Web({})
    found = web.discover(issuer)
    assert (found.endpoint("token_endpoint"), found.scopes_supported, found.issuer) == (f"{URL}/token", ("a",), None)
    assert web.asked == []
    with pytest.raises(RefreshError, match="revocation_endpoint"):
        found.endpoint("revocation_endpoint")


# Its age


def test_a_document_is_asked_for_once_a_day_and_first_where_it_was():
    clock, issuer = ManualClock(), Issuer(URL)
    web = Web({OPENID_BEHIND: answer(document())})
    web.discover(issuer, clock)
    clock.advance(DAY - 1)
    web.discover(issuer, clock)
    assert len(web.asked) == 3
    clock.advance(1)
    web.discover(issuer, clock)
    assert web.asked[3:] == [OPENID_BEHIND]
    web.discover(issuer, clock)
    assert len(web.asked) == 4


def test_a_failed_search_is_not_remembered():
    issuer, web = Issuer(URL), Web({})
    with pytest.raises(RefreshError):
        web.discover(issuer)
    web.pages[OAUTH] = answer(document())
    assert web.discover(issuer).token_endpoint == f"{URL}/token"


@pytest.mark.parametrize(
    "page",
    [
        NOT_FOUND,
        httpx.Response(503),
        RefreshError("The connection was refused."),
        answer(document(issuer="https://evil.example")),
        answer(document(token_endpoint="http://id.example.com/token")),
        answer(document(token_endpoint="https://evil.example/token")),
        answer(document(token_endpoint="https://id.example.com:8443/token")),
        answer(document(token_endpoint=None)),
    ],
)
def test_where_no_good_document_comes_the_last_one_goes_on_and_the_log_says_so(page, caplog):
    clock, issuer = ManualClock(), Issuer(URL)
    web = Web({OAUTH: answer(document())})
    web.discover(issuer, clock)
    clock.advance(DAY)
    web.pages[OAUTH] = page
    with caplog.at_level(logging.WARNING, "httpx_reauth"):
        assert web.discover(issuer, clock).token_endpoint == f"{URL}/token"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    count = len(web.asked)
    clock.advance(299)
    web.discover(issuer, clock)
    assert len(web.asked) == count
    # Within its origin, a server may move them.
    web.pages[OAUTH] = answer(document(token_endpoint=f"{URL}/v2/token"))
    clock.advance(1)
    assert web.discover(issuer, clock).token_endpoint == f"{URL}/v2/token"


# Many at once


def test_of_many_first_uses_at_once_one_asks_and_the_others_wait_for_it():
    issuer, clock = Issuer(URL), ManualClock()
    first, second = issuer.discover(clock=clock), issuer.discover(clock=clock)
    request, other = next(first), next(second)
    assert request.shared is None
    assert other.shared is not None
    assert not other.shared.is_set()
    with pytest.raises(StopIteration) as end:
        first.send(answer(document()))
    assert other.shared.is_set()
    with pytest.raises(StopIteration) as other_end:
        second.send(None)
    assert end.value.value == other_end.value.value


def test_those_who_wait_for_a_search_that_fails_fail_with_it_each_with_an_error_of_its_own():
    issuer = Issuer(URL)
    first, second, third = issuer.discover(), issuer.discover(), issuer.discover()
    for flow in (first, second, third):
        next(flow)
    errors = []
    with pytest.raises(RefreshError) as caught:
        first.throw(RefreshError("no way there"))
    errors.append(caught.value)
    for flow in (second, third):
        with pytest.raises(RefreshError) as caught:
            flow.send(None)
        errors.append(caught.value)
    assert [str(error) for error in errors] == ["no way there"] * 3
    assert len({id(error) for error in errors}) == 3


def test_where_the_one_who_asks_is_given_up_another_one_asks():
    issuer = Issuer(URL)
    first, second = issuer.discover(), issuer.discover()
    next(first)
    waiting = next(second)
    first.close()
    assert waiting.shared is not None
    assert waiting.shared.is_set()
    assert second.send(None) == MetadataRequest(OAUTH)


def test_while_an_aged_document_is_renewed_the_others_go_on_with_it():
    issuer, clock = Issuer(URL), ManualClock()
    web = Web({OAUTH: answer(document())})
    web.discover(issuer, clock)
    clock.advance(DAY)
    renewing = issuer.discover(clock=clock)
    next(renewing)
    web.discover(issuer, clock)
    assert web.asked == [OAUTH]


def test_a_driver_that_does_not_share_gets_a_document_all_the_same():
    issuer = Issuer(URL)
    first, second = issuer.discover(), issuer.discover()
    next(first)
    next(second)
    with pytest.raises(StopIteration) as end:
        second.send(answer(document()))
    assert end.value.value.token_endpoint == f"{URL}/token"


def test_threads_that_need_the_document_at_once_send_one_request():
    issuer, asked, barrier = Issuer(URL), [], threading.Barrier(50)
    found: list[ServerMetadata] = []

    def use() -> None:
        barrier.wait(10)
        flow = issuer.discover()
        reply: httpx.Response | None = None
        try:
            request = next(flow)
            while True:
                if request.shared is None:
                    asked.append(request.url)
                    reply = answer(document())
                else:
                    assert request.shared.wait(10)
                    reply = None
                request = flow.send(reply)
        except StopIteration as stop:
            found.append(stop.value)

    threads = [threading.Thread(target=use) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert asked == [OAUTH]
    assert len(found) == 50


# What is given


@pytest.mark.parametrize(
    "url",
    [
        "",
        "id.example.com",
        "ftp://id.example.com",
        "https://",
        "https:///realms",
        "https://user:secret@id.example.com",
        "https://id.example.com?a=b",
        "https://id.example.com/#",
        "https://id.example.com\\@evil.example",
        "https://id.example.com/ ",
        "https://id.example.com/.well-known/openid-configuration",
    ],
)
def test_what_is_no_issuer_is_said_when_it_is_made(url):
    with pytest.raises(ValueError, match="issuer") as caught:
        Issuer(url)
    assert "secret" not in str(caught.value)


def test_another_type_than_a_string_is_said_when_it_is_made():
    with pytest.raises(TypeError):
        Issuer(httpx.URL("https://id.example.com"))  # type: ignore[arg-type]


def test_a_given_endpoint_must_be_a_url():
    with pytest.raises(ValueError, match=r"The authorization_endpoint .*URL"):
        Issuer("https://id.example.com", authorization_endpoint="/authorize")
    with pytest.raises(ValueError, match=r"The revocation_endpoint .*URL"):
        Issuer.of(revocation_endpoint="/revoke")


@pytest.mark.parametrize(
    ("issuer", "says"),
    [
        (Issuer("http://id.example.com"), "The issuer http://id.example.com is plain http"),
        (Issuer.of(device_authorization_endpoint="http://id.example.com/d"), "The device_authorization_endpoint http"),
        (Issuer.of(mtls_endpoint_aliases={"token_endpoint": "http://id.example.com/t"}), "aliases.token_endpoint http"),
    ],
)
def test_plain_http_is_refused_by_the_name_of_what_was_given(issuer, says):
    with pytest.raises(InsecureOrigin, match=says):
        issuer.check(allow_http=False)
    issuer.check(allow_http=True)


def test_two_with_the_same_settings_are_equal_and_their_repr_says_them():
    assert Issuer(URL, token_endpoint=f"{URL}/t") == Issuer(URL, token_endpoint=f"{URL}/t") != Issuer(URL)
    assert len({Issuer(URL), Issuer(URL)}) == 1
    assert repr(Issuer(URL)) == f"Issuer({URL!r})"
    assert repr(Issuer.of(token_endpoint=f"{URL}/t")) == f"Issuer.of(token_endpoint={URL + '/t'!r})"


# How the client says who it is


@pytest.mark.parametrize(
    ("supported", "has_secret", "method"),
    [
        (None, True, "client_secret_basic"),
        ((), True, "client_secret_basic"),
        (("client_secret_post", "client_secret_basic"), True, "client_secret_basic"),
        (("private_key_jwt", "client_secret_post"), True, "client_secret_post"),
        (("client_secret_jwt", "none"), True, "client_secret_jwt"),
        (None, False, "none"),
        (("client_secret_basic",), False, "none"),
    ],
)
def test_the_clients_authentication_is_chosen_from_what_the_server_takes(supported, has_secret, method):
    metadata = ServerMetadata(token_endpoint_auth_methods_supported=supported)
    assert choose_client_auth(metadata, has_secret=has_secret) == method


def test_a_secret_is_not_sent_to_a_server_that_says_it_takes_none():
    metadata = ServerMetadata(token_endpoint_auth_methods_supported=("private_key_jwt", "tls_client_auth"))
    with pytest.raises(RefreshError, match="private_key_jwt"):
        choose_client_auth(metadata, has_secret=True)


def test_a_document_is_read_in_any_of_jsons_encodings():
    page = httpx.Response(200, content=json.dumps(document()).encode("utf-16"))
    assert Web({OAUTH: page}).discover(Issuer(URL)).token_endpoint == f"{URL}/token"
