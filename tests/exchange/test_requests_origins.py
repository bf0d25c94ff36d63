"""Tests of `origins`: to which URLs the token is sent, and to which it is not (guarantee 9)."""

from __future__ import annotations

import logging
import re

import anyio
import pytest

from httpx_reauth import InsecureOrigin, RefreshError, SignInRequired, Token
from httpx_reauth.testing import faults

WELCOME_BY_DEFAULT = [
    "https://api.example.com/me",
    "https://api.example.com:8443/me",
    "HTTPS://API.Example.COM/me",
    "https://user:pass@api.example.com/me",
    "https://bücher.example/me",
    "https://xn--bcher-kva.example/me",
    "https://192.0.2.1/me",
    "https://[2001:db8::1]:8443/me",
    "http://localhost/me",
    "http://LOCALHOST:8000/me",
    "http://127.0.0.1:5000/me",
    "http://127.8.9.1/me",
    "http://[::1]:8000/me",
]
IN_THE_CLEAR = [
    ("http://api.example.com/me", "http://api.example.com"),
    ("http://api.example.com:8080/me", "http://api.example.com:8080"),
    ("http://API.Example.com:80/me", "http://api.example.com"),
    ("http://user:pass@api.example.com/me", "http://api.example.com"),
    ("http://bücher.example/me", "http://xn--bcher-kva.example"),  # messages are ASCII
    ("ws://api.example.com/feed", "ws://api.example.com"),
    ("http://192.0.2.1/me", "http://192.0.2.1"),
    ("http://[2001:db8::1]/me", "http://[2001:db8::1]"),
    ("http://[2001:db8::1]:8080/me", "http://[2001:db8::1]:8080"),
    ("http://localhost.example.com/me", "http://localhost.example.com"),
    ("http://notlocalhost/me", "http://notlocalhost"),
    ("http://127.0.0.1.example.com/me", "http://127.0.0.1.example.com"),
    ("http://0.0.0.0/me", "http://0.0.0.0"),
]
NO_ORIGINS = [
    "",
    "api.example.com",
    "api.example.com:8443",
    "localhost:8000",
    "//api.example.com",
    "/path",
    "https://",
    "https:///path",
    "https://api.example.com/v1",
    "https://api.example.com/v1/",
    "https://api.example.com//",
    "https://api.example.com?",
    "https://api.example.com/?a=b",
    "https://api.example.com/#top",
    "https://user@api.example.com",
    "https://user:secret-pass@api.example.com",
    "ftp://api.example.com",
    "file:///etc/passwd",
]
# Entries that are no URL, and entries that look like a pattern but could never match anything.
NO_URLS = [
    "https://api.example.com:99999",
    "https://api.example.com:port",
    "https://[::1",
    "https://api .example.com",
    "https://api.example.com\n",
    # A pattern replaces one label of a host: `*.` at the beginning, and at least two labels after it.
    "https://*",
    "https://*.com",
    "https://*.com.",
    "https://*.localhost",
    "https://*.",
    "https://*..com",
    "https://*example.com",
    "https://api.*.com",
    "https://*.*.example.com",
    "https://**.example.com",
    "https://api-*.example.com",
    "https://*.0.0.1",
    "https://*.[::1]",
    "https://*.example.com/v1",
    "https://*.example.com:*",
    "*://api.example.com",
    "*.example.com",
]


def get(url):
    return lambda client: client.get(url)


@pytest.mark.parametrize("url", WELCOME_BY_DEFAULT)
def test_guarantee_9_by_default_the_token_goes_to_any_https_origin_and_to_loopback(talk, server, url):
    auth = talk.auth()
    first, second = talk.all(auth, get(url), get(url))
    assert (first.status_code, second.status_code) == (200, 200)
    assert server.authorizations() == [f"Bearer {auth.store.state.token.access_token}"] * 2


def test_guarantee_9_any_number_of_loopback_origins_gets_it_though_only_some_are_remembered(talk, server):
    auth = talk.auth()
    responses = talk.all(auth, *[get(f"http://127.0.0.1:{8000 + number}/me") for number in range(100)] * 2)
    assert [response.status_code for response in responses] == [200] * 200
    assert set(server.authorizations()) == {f"Bearer {auth.store.state.token.access_token}"}


@pytest.mark.parametrize("url", ["https://api.example.com/me", "http://localhost/me", "http://[::1]:8000/me"])
def test_guarantee_9_401_from_such_an_origin_renews_the_token(talk, server, url):
    auth = talk.auth()
    talk(auth, get(url))
    server.revoke_access_tokens()
    assert talk(auth, get(url)).status_code == 200
    assert server.token_requests == 1


@pytest.mark.parametrize(("url", "origin"), IN_THE_CLEAR)
def test_guarantee_9_plain_http_to_another_host_is_refused_before_anything_is_sent(talk, server, url, origin):
    auth = talk.auth()
    with pytest.raises(InsecureOrigin) as failure:
        talk(auth, get(url))
    message = str(failure.value)
    assert server.requests == []
    assert f" {origin} " in message
    assert "auth=None" in message
    assert "pass" not in message
    suggested = re.findall(r'origins=\["(.*?)"\]', message)
    assert talk(talk.auth(origins=suggested), get(url)).status_code == 200  # the advice in the message works


def test_guarantee_9_plain_http_is_refused_even_where_there_is_no_token_and_no_refresh_is_made_for_it(talk, server):
    auth = talk.auth(server.issue(access_token=False))
    with pytest.raises(InsecureOrigin):
        talk(auth, get("http://api.example.com/me"))
    assert server.requests == []


def test_insecure_origin_is_no_transport_error_since_trying_again_does_not_help(talk):
    with pytest.raises(InsecureOrigin) as failure:
        talk(talk.auth(), get("http://api.example.com/me"))
    assert not isinstance(failure.value, talk.package.HTTPError)
    assert not isinstance(failure.value, (RefreshError, SignInRequired))


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("https://api.example.com", "https://api.example.com/me"),
        ("https://api.example.com", "https://api.example.com:443/me"),
        ("https://api.example.com:443", "https://api.example.com/me"),
        ("https://api.example.com/", "https://api.example.com/me"),
        ("HTTPS://API.EXAMPLE.COM", "https://api.example.com/me"),
        ("https://api.example.com", "https://API.Example.com/me?a=b#c"),
        ("https://api.example.com", "https://user:pass@api.example.com/me"),
        ("https://api.example.com:8443", "https://api.example.com:8443/me"),
        ("https://bücher.example", "https://xn--bcher-kva.example/me"),
        ("https://xn--bcher-kva.example", "https://BÜCHER.example/me"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]/me"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443/me"),
        ("https://[2001:db8::1]", "https://[2001:0DB8:0:0::1]/me"),
        ("http://test", "http://test/me"),
        ("http://test:80", "http://test/me"),
        ("http://api.example.com:8080", "http://api.example.com:8080/me"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/me"),
        # An https origin admits wss, and an http origin admits ws.
        ("https://api.example.com", "wss://api.example.com/feed"),
        ("https://api.example.com:443", "wss://api.example.com/feed"),
        ("https://api.example.com", "wss://api.example.com:443/feed"),
        ("https://api.example.com:8443", "wss://api.example.com:8443/feed"),
        ("https://bücher.example", "wss://xn--bcher-kva.example/feed"),
        ("https://[2001:DB8::1]:8443", "wss://[2001:0db8::1]:8443/feed"),
        ("http://test", "ws://test/feed"),
        ("http://localhost:8000", "ws://localhost:8000/feed"),
        ("wss://api.example.com", "wss://api.example.com/feed"),
        # A pattern replaces one label of a host.
        ("https://*.example.com", "https://tenant.example.com/me"),
        ("https://*.example.com", "https://a-b_c.example.com/me"),
        ("https://*.example.com", "https://TENANT.Example.COM:443/me"),
        ("https://*.EXAMPLE.com/", "https://tenant.example.com/me"),
        ("https://*.example.com", "wss://tenant.example.com/feed"),
        ("https://*.example.com:8443", "https://tenant.example.com:8443/me"),
        ("https://*.eu.example.com", "https://tenant.eu.example.com/me"),
        ("https://*.bücher.example", "https://tenant.xn--bcher-kva.example/me"),
        ("https://*.xn--bcher-kva.example", "https://bücher.bücher.example/me"),
        ("https://*.example.com", "https://xn--bcher-kva.example.com/me"),
        ("http://*.corp.test", "http://tenant.corp.test/me"),
    ],
)
def test_guarantee_9_listed_origin_gets_the_token_however_it_is_spelt(talk, server, listed, url):
    auth = talk.auth(origins=["https://first.example", listed])
    server.revoke_access_tokens()
    first, second = talk.all(auth, get(url), get(url))
    assert (first.status_code, second.status_code) == (200, 200)
    assert (server.token_requests, server.api_requests) == (1, 3)


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("https://api.example.com", "https://example.com/me"),
        ("https://api.example.com", "https://www.api.example.com/me"),
        ("https://api.example.com", "https://api.example.com.evil.example/me"),
        ("https://api.example.com", "https://api.example.com@evil.example/me"),
        ("https://api.example.com", "https://api.example.com:8443/me"),
        ("https://api.example.com:8443", "https://api.example.com/me"),
        ("https://api.example.com", "http://localhost/me"),
        ("http://localhost:8000", "http://localhost:8001/me"),
        ("http://localhost:8000", "http://127.0.0.1:8000/me"),
        ("https://[2001:db8::1]", "https://[2001:db8::2]/me"),
        ("https://bücher.example", "https://bucher.example/me"),
        ("https://api.example.com:8443", "wss://api.example.com/feed"),
        ("https://api.example.com", "wss://www.api.example.com/feed"),
        ("wss://api.example.com", "https://api.example.com/me"),
        ("https://*.example.com", "https://example.com/me"),
        ("https://*.example.com", "https://a.b.example.com/me"),
        ("https://*.example.com", "https://tenant.example.com.evil.example/me"),
        ("https://*.example.com", "https://evil-example.com/me"),
        ("https://*.example.com", "https://tenantexample.com/me"),
        ("https://*.example.com", "https://tenant.example.com:8443/me"),
        ("https://*.example.com", "https://tenant.example.com@evil.example/me"),
        ("https://*.example.com:8443", "https://tenant.example.com/me"),
        ("https://*.bücher.example", "https://tenant.bucher.example/me"),
    ],
)
def test_guarantee_9_another_origin_than_the_listed_gets_no_token_and_its_401_causes_nothing(
    talk, server, caplog, listed, url
):
    auth = talk.auth(origins=[listed])
    with caplog.at_level(logging.DEBUG, "httpx_reauth"):
        refused = talk.all(auth, get(url), get(url), get(url))
    assert [response.status_code for response in refused] == [401] * 3
    assert server.authorizations() == [None] * 3
    assert (server.token_requests, auth.store.state.status) == (0, "idle")
    warnings = [record for record in caplog.records if record.name == "httpx_reauth"]
    assert [record.levelname for record in warnings] == ["WARNING"]  # one warning for three requests


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://other.example/me?secret=1", "https://other.example"),
        ("https://api.example.com:8443/me", "https://api.example.com:8443"),
        ("https://user:pass@[2001:db8::1]:8443/me", "https://[2001:db8::1]:8443"),
    ],
)
def test_warning_names_the_whole_origin_and_nothing_else_of_the_url(talk, server, caplog, url, origin):
    server.access = "open"
    with caplog.at_level(logging.WARNING, "httpx_reauth"):
        talk(talk.auth(origins=["https://api.example.com"]), get(url))
    assert f" {origin} " in caplog.text
    for part in ("/me", "secret", "user", "pass"):
        assert part not in caplog.text


def test_guarantee_9_warning_comes_once_for_each_origin(talk, server, caplog):
    server.access = "open"
    urls = ["https://one.example/a", "https://two.example/b", "https://one.example/c", "https://one.example:444/d"]
    with caplog.at_level(logging.WARNING, "httpx_reauth"):
        talk.all(talk.auth(origins=["https://api.example.com"]), *map(get, urls * 2))
    warned = [record for record in caplog.records if record.name == "httpx_reauth"]
    assert len(warned) == 3
    assert "is sent without the access token" in warned[0].getMessage()


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        (["https://api.example.com"], ["https://api.example.com"]),
        (["HTTPS://API.example.com:443/"], ["https://api.example.com"]),
        (["https://*.example.com:8443", "http://test"], ["https://*.example.com:8443", "http://test"]),
        (["https://bücher.example"], ["https://xn--bcher-kva.example"]),
        ([f"https://api{number}.example.com" for number in range(20)], ["https://api0.example.com", "17 more"]),
        ([], ["is empty"]),
    ],
    ids=str,
)
def test_the_warning_shows_what_is_listed(talk, server, caplog, listed, shown):
    server.access = "open"
    with caplog.at_level(logging.WARNING, "httpx_reauth"):
        talk(talk.auth(origins=listed), get("https://other.example/me"))
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "httpx_reauth"]
    assert "https://other.example" in warning
    assert "If the token may go there, list it" in warning
    for one in shown:
        assert one in warning
    assert warning.isascii()


def test_any_number_of_tenants_gets_the_token_though_only_some_are_remembered(talk, server):
    auth = talk.auth(origins=["https://*.example.com"])
    responses = talk.all(auth, *[get(f"https://tenant{number}.example.com/me") for number in range(100)] * 2)
    assert {response.status_code for response in responses} == {200}
    assert set(server.authorizations()) == {f"Bearer {auth.store.state.token.access_token}"}


@pytest.mark.parametrize("url", ["ws://other.example/feed", "http://a.b.example.com/me"])
def test_guarantee_9_a_pattern_does_not_allow_plain_http_to_another_host(talk, server, url):
    with pytest.raises(InsecureOrigin):
        talk(talk.auth(origins=["https://*.example.com", "http://*.example.com"]), get(url))
    assert server.requests == []


@pytest.mark.parametrize("url", ["http://other.example/me", "http://api.example.com/me", "ws://api.example.com/feed"])
def test_guarantee_9_with_listed_origins_plain_http_to_another_host_is_still_refused(talk, server, url):
    with pytest.raises(InsecureOrigin):
        talk(talk.auth(origins=["https://api.example.com"]), get(url))
    assert server.requests == []


def test_guarantee_9_absolute_url_overrides_the_base_url_of_the_client_and_gets_no_token(talk, server):
    auth = talk.auth(origins=[talk.site.url])
    ours, theirs = talk.all(auth, get("/me"), get("https://tracker.example/pixel"))
    assert (ours.status_code, theirs.status_code) == (200, 401)
    assert server.authorizations("/pixel") == [None]
    assert server.token_requests == 0


def test_guarantee_9_stranger_is_reached_even_while_no_token_can_be_had(talk, server):
    server.access = "open"
    server.token_endpoint.fail_always(faults.unavailable())
    auth = talk.auth(server.issue(access_token=False), origins=["https://api.example.com"])
    assert talk(auth, get("https://tracker.example/pixel")).status_code == 200
    assert server.token_requests == 0


def test_guarantee_9_no_origin_at_all_may_be_listed(talk, server):
    assert talk(talk.auth(origins=[]), get("https://api.example.com/me")).status_code == 401
    assert server.authorizations() == [None]


@pytest.mark.parametrize("entry", NO_ORIGINS)
def test_guarantee_9_entry_that_is_no_origin_is_a_value_error(library, entry):
    with pytest.raises(ValueError, match="is not an origin") as failure:
        library.Reauth(lambda token: token, origins=["https://fine.example", entry])
    assert "https://api.example.com" in str(failure.value)  # the message shows how to write it
    assert "secret-pass" not in str(failure.value)


@pytest.mark.parametrize("entry", NO_URLS)
def test_guarantee_9_entry_that_could_match_nothing_is_a_value_error(library, entry):
    with pytest.raises(ValueError, match="is not an origin"):
        library.Reauth(lambda token: token, origins=[entry])


def test_one_string_is_not_a_list_of_origins(library):
    with pytest.raises(ValueError, match=r'origins=\["https://'):
        library.Reauth(lambda token: token, origins="https://api.example.com")


@pytest.mark.parametrize("kind", [list, tuple, set, iter])
def test_origins_may_be_any_iterable(talk, kind):
    auth = talk.auth(origins=kind([talk.site.url]))
    assert talk(auth, get("/me")).status_code == 200


def test_guarantee_9_stranger_keeps_the_header_that_the_request_had_for_it(talk, server):
    auth = talk.auth(origins=["https://api.example.com"])
    talk(auth, lambda client: client.get("https://other.example/me", headers={"Authorization": "Bearer of-others"}))
    # the request did not carry our token, so its 401 starts no refresh
    assert server.authorizations() == ["Bearer of-others"]
    assert server.token_requests == 0


# --- requests written in httpx's ways ---


def test_in_process_app_on_plain_http_works_once_its_origin_is_listed(talk, server):
    """A user's tests write it so: an ASGITransport and `base_url="http://test"`."""
    auth = talk.auth(origins=["http://test"])
    server.revoke_access_tokens()
    first, second = talk.all(auth, get("http://test/me"), get("http://test/me"))
    assert (first.status_code, second.status_code) == (200, 200)
    assert server.token_requests == 1


def test_asgi_app_in_process(library, anyio_backend, server, clock):
    seen = []

    async def app(scope, receive, send):
        headers = dict(scope["headers"])
        seen.append(headers.get(b"authorization"))
        status = 200 if seen[-1] == b"Bearer fresh" else 401
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async def main():
        auth = library.Reauth(lambda token: Token("fresh"), token=Token("stale"), origins=["http://test"])
        transport = library.package.ASGITransport(app)
        async with library.package.AsyncClient(transport=transport, base_url="http://test", auth=auth) as client:
            response = await client.get("/me")
        assert (response.status_code, response.text) == (200, "hello")

    anyio.run(main, backend=anyio_backend)
    assert seen == [b"Bearer stale", b"Bearer fresh"]


def test_auth_none_skips_the_token_the_refresh_and_the_check_of_the_origin(talk, server):
    auth = talk.auth(server.issue(access_token=False))
    responses = talk.all(
        auth,
        lambda client: client.get("/me", auth=None),
        lambda client: client.get("http://api.example.com/me", auth=None),
    )
    assert [response.status_code for response in responses] == [401, 401]
    assert server.authorizations() == [None, None]
    assert server.token_requests == 0


def test_refresh_may_use_the_client_it_serves_with_auth_none(library, site, server, clock, anyio_backend):
    async def main():
        async def refresh(token):
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
            return Token.from_response(await client.post("/token", data=form, auth=None))

        auth = library.Reauth(refresh, token=server.issue(access_token=False), clock=clock)
        async with site.async_client(auth) as client:
            assert (await client.get("/me")).status_code == 200
            server.revoke_access_tokens()
            assert (await client.get("/me")).status_code == 200

    anyio.run(main, backend=anyio_backend)
    assert server.authorizations("/token") == [None, None]
    assert server.token_requests == 2


def test_auth_wins_over_an_authorization_header_of_the_request_and_of_the_client(talk, server):
    auth = talk.auth()
    server.access = "open"
    talk(
        auth,
        lambda client: client.get("/me", headers={"Authorization": "Basic abc"}),
        headers={"authorization": "Bearer of-the-client"},
    )
    assert server.authorizations() == [f"Bearer {auth.store.state.token.access_token}"]


def test_auth_of_one_request_wins_over_that_of_the_client(talk, server):
    auth, other = talk.auth(), talk.auth()
    server.access = "open"
    talk(auth, lambda client: client.get("/me", auth=other))
    assert server.authorizations() == [f"Bearer {other.store.state.token.access_token}"]


def test_user_and_password_in_a_url_do_not_win_over_the_token(talk, server):
    auth = talk.auth()
    assert talk(auth, get("https://user:pass@api.test/me")).status_code == 200
    assert server.authorizations() == [f"Bearer {auth.store.state.token.access_token}"]


# --- a proxy from the environment variables ---


@pytest.fixture
def environment(monkeypatch):
    """Keep only these of the environment variables that name a proxy."""

    def set_to(**variables: str) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_to


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "httpx_reauth"]


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        ("http://localhost:8000/me", {"HTTP_PROXY": "http://user:pass@proxy.example:3128"}),
        ("http://localhost:8000/me", {"http_proxy": "proxy.example:3128"}),
        ("http://localhost/me", {"ALL_PROXY": "socks5://proxy.example:1080"}),
        ("http://localhost/me", {"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "example.com, 10.0.0.0/8"}),
        ("http://127.0.0.1/me", {"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "localhost"}),
        ("http://[::1]:8000/me", {"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "localhost,127.0.0.1"}),
        ("ws://localhost/feed", {"ALL_PROXY": "http://proxy.example:3128"}),
    ],
    ids=str,
)
def test_guarantee_9_a_proxy_that_gets_the_token_for_loopback_in_the_clear_is_warned_of_once(
    talk, server, caplog, environment, url, variables
):
    environment(**variables)
    auth = talk.auth()
    with caplog.at_level(logging.WARNING, "httpx_reauth"):
        talk.all(auth, get("wss://other.example/feed"), get(url), get(url), get("http://localhost:9999/me"))
    (warning,) = warnings_of(caplog)
    assert "NO_PROXY" in warning
    assert "trust_env=False" in warning
    assert "pass" not in warning
    assert set(server.authorizations()) == {f"Bearer {auth.store.state.token.access_token}"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HTTPS_PROXY": "http://proxy.example:3128"},
        {"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "localhost,127.0.0.1,::1"},
        {"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "example.com,http://localhost"},
        {"HTTP_PROXY": "http://proxy.example:3128", "no_proxy": "*"},
        {"ALL_PROXY": "http://proxy.example:3128", "NO_PROXY": "example.com, LOCALHOST"},
        {"HTTP_PROXY": ""},
    ],
    ids=str,
)
def test_there_is_no_warning_if_no_proxy_gets_the_token(talk, server, caplog, environment, variables):
    environment(**variables)
    with caplog.at_level(logging.WARNING, "httpx_reauth"):
        talk.all(talk.auth(), get("http://localhost:8000/me"), get("https://api.example.com/me"))
    assert warnings_of(caplog) == []


def test_there_is_no_warning_if_the_origin_is_listed_or_gets_no_token(talk, server, caplog, environment):
    environment(HTTP_PROXY="http://proxy.example:3128")
    server.access = "open"
    with caplog.at_level(logging.WARNING, "httpx_reauth"):
        talk(talk.auth(origins=["http://localhost:8000"]), get("http://localhost:8000/me"))
        talk(talk.auth(), get("https://localhost:8000/me"))
    assert warnings_of(caplog) == []
