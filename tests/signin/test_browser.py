"""Tests of signing in, sync and on both event loops, with real loopback sockets and a function instead of a browser.

test_real_servers.py and test_chromium.py test the same with real servers and in a real browser.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import webbrowser
from urllib.parse import urlsplit

import httpx
import pytest
from signing_in import CODE, URL, get, query_of, skip_without

from httpx_reauth import InsecureOrigin, Reauth, ReauthError, RefreshError, Token
from httpx_reauth.oauth import Issuer
from httpx_reauth.signin import BrowserPrompt, BrowserSignIn, DeviceSignIn, SignInDenied, SignInExpired

SHOWN: list[object] = []


def sign_in(stand_in, **settings) -> BrowserSignIn:
    settings = {"client": stand_in.client(), "open": stand_in.visit, **settings}
    return BrowserSignIn(settings.pop("issuer", stand_in.issuer()), "cli", **settings)


@pytest.fixture
def shown() -> list[object]:
    """Return a list that gets what is shown, by `show=shown.append`."""
    return []


def in_background(function, *args) -> None:
    threading.Thread(target=function, args=args).start()


def test_a_sign_in_ends_in_the_token(stand_in, run):
    token = run(sign_in(stand_in))
    assert (token.access_token, token.refresh_token) == ("s3cret-access", "s3cret-refresh")
    assert stand_in.paths == ["/.well-known/oauth-authorization-server", "/token"]
    assert stand_in.forms("/token")[0].keys() == {"grant_type", "code", "redirect_uri", "code_verifier", "client_id"}


def test_the_token_is_for_sign_in(stand_in):
    auth = Reauth(lambda token: token, token=None)
    auth.sign_in(sign_in(stand_in).run())
    assert auth.get_token().access_token == "s3cret-access"


def test_the_answer_may_come_before_open_has_returned_and_after(stand_in, run):
    run(sign_in(stand_in, open=stand_in.visit))
    run(sign_in(stand_in, open=lambda url: in_background(stand_in.visit, url)))
    assert stand_in.paths.count("/token") == 2


def test_the_authorization_request_has_what_the_rfcs_ask_for(stand_in):
    run_one = sign_in(
        stand_in,
        scope=["read", "write"],
        resource="https://api.example.com",
        extra={"prompt": "consent", "login_hint": "ada@example.com"},
    )
    run_one.run()
    asked = stand_in.authorized
    assert asked.pop("state")
    assert len(asked.pop("code_challenge")) == 43
    host = urlsplit(asked.pop("redirect_uri"))
    assert (host.scheme, host.hostname, host.path) == ("http", "127.0.0.1", "/callback")
    assert asked == {
        "response_type": "code",
        "client_id": "cli",
        "code_challenge_method": "S256",
        "scope": "read write",
        "resource": "https://api.example.com",
        "prompt": "consent",
        "login_hint": "ada@example.com",
    }
    assert stand_in.forms("/token")[0]["resource"] == "https://api.example.com"  # RFC 8707 section 2.2
    assert "scope" not in stand_in.forms("/token")[0]


def test_each_sign_in_has_a_state_and_a_verifier_of_its_own(stand_in):
    one = sign_in(stand_in)
    states, verifiers = set(), set()
    for _ in range(3):
        one.run()
        states.add(stand_in.authorized["state"])
        verifiers.add(stand_in.forms("/token")[-1]["code_verifier"])
    assert len(states) == len(verifiers) == 3
    assert all(43 <= len(verifier) <= 128 for verifier in verifiers)


class Seen(Exception):
    """The test has seen enough, and ends the sign-in."""


def test_several_parameters_of_one_name_and_an_endpoint_with_a_query_are_kept(stand_in):
    stand_in.metadata["authorization_endpoint"] = f"{URL}/authorize?tenant=a"
    urls: list[str] = []
    resources = ["https://a.example.com", "https://b.example.com"]

    def open_(url: str) -> None:
        urls.append(url)
        raise Seen

    with pytest.raises(Seen):
        sign_in(stand_in, resource=resources, open=open_).run(show=lambda _: None)
    query = httpx.URL(urls[0]).params
    assert query["tenant"] == "a"
    assert query.get_list("resource") == resources


@pytest.mark.parametrize("package", ["httpx", "httpx2"])
def test_the_requests_go_out_by_the_client_of_either_package(stand_in, run, package):
    client = stand_in.client(pytest.importorskip(package))
    assert run(sign_in(stand_in, client=client)).access_token == "s3cret-access"


# Other requests to the port.


def test_a_wrong_state_gets_400_and_the_wait_goes_on(stand_in, run):
    pages: list[httpx.Response] = []

    def open_(url: str) -> None:
        pages.append(stand_in.visit(url, code="forged", state="guessed"))
        pages.append(stand_in.visit(url, code="forged", state=None))
        pages.append(stand_in.visit(url))

    run(sign_in(stand_in, open=open_))
    assert [page.status_code for page in pages] == [400, 400, 200]
    assert [form["code"] for form in stand_in.forms("/token")] == [CODE]


def test_another_page_of_the_browser_gets_404_for_all_it_tries(stand_in, run):
    statuses: list[int] = []

    def open_(url: str) -> None:
        place = stand_in.callback(url)
        for method, target in [
            ("HEAD", place),
            ("POST", place),
            ("GET", httpx.URL(place).copy_with(path="/favicon.ico")),
            ("GET", httpx.URL(place).copy_with(path="/")),
            ("OPTIONS", place),
        ]:
            with httpx.Client(trust_env=False, verify=False) as other:
                statuses.append(other.request(method, target).status_code)
        stand_in.visit(url)

    run(sign_in(stand_in, open=open_))
    assert statuses == [404] * 5
    assert len(stand_in.forms("/token")) == 1


def test_a_second_answer_is_not_used_and_the_port_is_closed_afterwards(stand_in, run):
    outcomes: list[object] = []

    def open_(url: str) -> None:
        outcomes.append(stand_in.visit(url).status_code)
        try:
            outcomes.append(get(stand_in.callback(url, code="another")).status_code)
        except httpx.TransportError:
            outcomes.append("closed")

    run(sign_in(stand_in, open=open_))
    assert outcomes[0] == 200
    assert outcomes[1] in {400, "closed"}
    assert [form["code"] for form in stand_in.forms("/token")] == [CODE]
    with pytest.raises(httpx.ConnectError):
        get(stand_in.authorized["redirect_uri"])


def test_two_answers_at_the_same_time_count_as_one(stand_in, run):
    def open_(url: str) -> None:
        place = stand_in.callback(url)
        host = urlsplit(place)
        two = [socket.create_connection((host.hostname, host.port), timeout=10) for _ in range(2)]
        for one in two:
            one.sendall(f"GET {host.path}?{host.query} HTTP/1.1\r\n\r\n".encode())
        replies = [b"".join(iter(lambda one=one: received(one), b"")) for one in two]
        assert [reply[9:12] for reply in replies if reply].count(b"200") == 1
        for one in two:
            one.close()

    run(sign_in(stand_in, open=open_))
    assert len(stand_in.forms("/token")) == 1


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionError:
        return b""


# Answers of the browser without a code.


@pytest.mark.parametrize("iss", [None, "https://attacker.example.com", f"{URL}/", ""])
def test_a_wrong_iss_ends_the_sign_in_and_the_code_is_not_used(stand_in, run, iss):
    stand_in.metadata["authorization_response_iss_parameter_supported"] = True
    pages: list[httpx.Response] = []
    with pytest.raises(SignInDenied, match="RFC 9207"):
        run(sign_in(stand_in, open=lambda url: pages.append(stand_in.visit(url, iss=iss))))
    assert stand_in.forms("/token") == []
    assert pages[0].status_code == 400


def test_the_right_iss_is_accepted(stand_in, run):
    stand_in.metadata["authorization_response_iss_parameter_supported"] = True
    run(sign_in(stand_in, open=lambda url: stand_in.visit(url, iss=URL)))


@pytest.mark.parametrize("is_required", [False, True])
def test_a_template_names_no_issuer_with_which_iss_could_be_compared(stand_in, run, is_required):
    template = "https://id.example.com/{tenantid}/v2.0"
    stand_in.metadata["issuer"] = template
    stand_in.metadata["authorization_response_iss_parameter_supported"] = is_required
    issuer = Issuer(URL, issuer=template)
    iss = "https://id.example.com/0000-1111/v2.0"
    assert run(sign_in(stand_in, issuer=issuer, open=lambda url: stand_in.visit(url, iss=iss))).access_token


def test_a_refusal_by_the_user_is_a_denied_sign_in(stand_in, run):
    pages: list[httpx.Response] = []

    def open_(url: str) -> None:
        pages.append(
            stand_in.visit(
                url, code=None, error="access_denied", error_description="Not today\r\n\x1b[31m, nicht f\xfcr dich"
            )
        )

    with pytest.raises(SignInDenied) as failure:
        run(sign_in(stand_in, open=open_))
    assert isinstance(failure.value, ReauthError)
    assert failure.value.error == "access_denied"
    assert failure.value.error_description == "Not today???[31m, nicht f\xfcr dich"
    assert "access_denied" in str(failure.value)
    assert str(failure.value).isascii()
    assert "close this window" in pages[0].text
    assert "Not today" not in pages[0].text
    assert stand_in.forms("/token") == []


def test_an_answer_without_a_code_is_a_denied_sign_in(stand_in):
    with pytest.raises(SignInDenied):
        sign_in(stand_in, open=lambda url: stand_in.visit(url, code=None)).run()


def test_a_browser_that_never_comes_and_a_closed_window_end_with_the_time(stand_in, run):
    with pytest.raises(SignInExpired, match=r"0\.1 s.*begin a new sign-in"):
        run(sign_in(stand_in, open=lambda _: None, timeout=0.1))
    assert stand_in.forms("/token") == []


def test_an_open_that_does_not_return_is_not_waited_for(stand_in, run):
    """`open` may start a text browser, which returns only when the user leaves it."""
    hold = threading.Event()

    def open_(url: str) -> None:
        stand_in.visit(url)
        assert hold.wait(20)

    try:
        run(sign_in(stand_in, open=open_))
    finally:
        hold.set()
        for thread in threading.enumerate():
            if thread.name == "httpx_reauth.signin":
                thread.join(20)


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("error", ["invalid_grant", "invalid_client", "unauthorized_client"])
def test_a_code_that_the_server_refuses_is_a_denied_sign_in(stand_in, run, status, error):
    stand_in.token = [(status, {"error": error, "error_description": f"{CODE} is not known"})]
    with pytest.raises(SignInDenied) as failure:
        run(sign_in(stand_in))
    assert failure.value.error == error
    assert CODE not in f"{failure.value} {failure.value.error_description}"
    assert "refresh token" not in str(failure.value)
    assert len(stand_in.forms("/token")) == 1


@pytest.mark.parametrize("answer", [(500, {}), (502, {"error": "server_error"}), httpx.ReadTimeout("slow")])
def test_a_server_that_fails_is_a_transient_error_and_the_code_is_sent_once(stand_in, run, answer):
    stand_in.token = [answer]
    with pytest.raises(RefreshError) as failure:
        run(sign_in(stand_in))
    assert "back-off" not in str(failure.value)
    assert len(stand_in.forms("/token")) == 1


# Ports and hosts.


def test_a_taken_port_is_an_error_before_a_browser_opens_or_a_request_goes_out(stand_in, run):
    opened: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ReauthError, match=str(port)):
            run(sign_in(stand_in, port=port, open=opened.append))
    assert opened == []
    assert stand_in.requests == []


def test_of_the_listed_ports_the_first_free_one_is_in_the_redirect_uri(stand_in, run):
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as gone:
        taken, free = other.getsockname()[1], gone.getsockname()[1]
        gone.close()
        run(sign_in(stand_in, port=[taken, free], path="/cli/callback"))
    assert stand_in.authorized["redirect_uri"] == f"http://127.0.0.1:{free}/cli/callback"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_host_is_in_the_redirect_uri_and_reachable(stand_in, run, host):
    skip_without(host)
    run(sign_in(stand_in, host=host))
    assert urlsplit(stand_in.authorized["redirect_uri"]).hostname == host


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_localhost_is_answered_at_either_address(stand_in, run, address):
    def open_(url: str) -> None:
        get(stand_in.callback(url).replace("localhost", address))

    skip_without("::1")
    run(sign_in(stand_in, host="localhost", open=open_))
    assert urlsplit(stand_in.authorized["redirect_uri"]).hostname == "localhost"


# No browser can be opened.


def no_browser(_: str) -> bool:
    return False


def broken_browser(_: str) -> None:
    raise webbrowser.Error("could not locate runnable browser")


@pytest.mark.parametrize("open_", [no_browser, broken_browser])
def test_without_a_browser_the_address_is_shown_and_that_of_the_last_page_is_pasted(stand_in, run, open_, shown):
    run(sign_in(stand_in, open=open_, paste=lambda: stand_in.callback(shown[-1].url)), show=shown.append)
    assert [(prompt.is_opening, prompt.can_paste) for prompt in shown] == [(True, False), (False, True)]
    assert shown[-1].url in str(shown[-1])
    assert shown[-1].url.startswith(f"{URL}/authorize?")


def test_a_paste_that_takes_an_argument_gets_the_address(stand_in, run):
    run(sign_in(stand_in, open=no_browser, paste=stand_in.callback), show=lambda _: None)
    assert stand_in.authorized


def test_what_is_pasted_wrongly_is_asked_for_again(stand_in, run, shown):
    pasted = iter(["what?", f"http://127.0.0.1/callback?code={CODE}&state=wrong"])
    run(
        sign_in(stand_in, open=no_browser, paste=lambda: next(pasted, None) or stand_in.callback(shown[0].url)),
        show=shown.append,
    )
    assert [prompt.is_repeated for prompt in shown] == [False, False, True, True]


def test_who_pastes_nonsense_is_not_asked_for_ever(stand_in, run):
    pastes: list[None] = []

    def paste() -> str:
        pastes.append(None)
        return "nonsense"

    with pytest.raises(SignInExpired):
        run(sign_in(stand_in, open=no_browser, paste=paste, timeout=2.0), show=lambda _: None)
    assert len(pastes) == 5


def end_of_file() -> str:
    raise EOFError


@pytest.mark.parametrize("paste", [lambda: "", lambda: None, end_of_file])
def test_who_pastes_nothing_can_still_answer_by_the_port(stand_in, run, paste, shown):
    def show(prompt):
        shown.append(prompt)
        if not prompt.is_opening:
            in_background(stand_in.visit, prompt.url)

    run(sign_in(stand_in, open=no_browser, paste=paste), show=show)


def test_a_wrong_iss_is_noticed_in_what_is_pasted_as_well(stand_in, run, shown):
    def paste() -> str:
        return stand_in.callback(shown[-1].url, iss="https://attacker.example.com")

    with pytest.raises(SignInDenied, match="RFC 9207"):
        run(sign_in(stand_in, open=no_browser, paste=paste), show=shown.append)


@pytest.mark.parametrize("where", ["open", "paste"])
def test_a_mistake_in_the_callers_function_is_raised_as_it_is(stand_in, run, where):
    def mistaken(*_):
        raise KeyError("mistake")

    settings = {"open": no_browser, "paste": end_of_file, where: mistaken}
    with pytest.raises(KeyError, match="mistake"):
        run(sign_in(stand_in, **settings), show=lambda _: None)


HEADLESS = ["BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "SSH_CONNECTION", "SSH_TTY"]


@pytest.mark.parametrize(
    ("platform", "environment", "opens"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"WSL_DISTRO_NAME": "Debian"}, True),
        ("linux", {"SSH_CONNECTION": "1"}, False),
        ("linux", {"SSH_CONNECTION": "1", "BROWSER": "/opt/editor/open-at-home"}, True),
        ("darwin", {}, True),
        ("darwin", {"SSH_CONNECTION": "1"}, False),
        ("win32", {}, True),
        ("win32", {"SSH_TTY": "1"}, False),
    ],
)
def test_the_default_browser_is_opened_where_a_person_sees_it(stand_in, platform, environment, opens, monkeypatch):
    from httpx_reauth.signin import redirect

    for name in HEADLESS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    opened = threading.Event()
    monkeypatch.setattr(webbrowser, "open", lambda _: opened.set())
    shown: list[bool] = []

    def show(prompt: BrowserPrompt) -> None:
        shown.append(prompt.is_opening)
        if opens:
            assert opened.wait(30)
        raise Seen

    with pytest.raises(Seen):
        sign_in(stand_in, open=redirect.webbrowser.open).run(show=show)
    assert opened.is_set() is opens
    assert shown == [opens]


# Output for the user.


def test_by_default_the_address_is_printed_to_the_standard_error_stream(stand_in, run, capsys):
    run(sign_in(stand_in))
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{URL}/authorize?" in err


def test_show_may_be_a_coroutine_function_for_arun(stand_in):
    import anyio

    async def main() -> list[object]:
        shown: list[object] = []

        async def show(prompt: object) -> None:
            await anyio.lowlevel.checkpoint()
            shown.append(prompt)

        await sign_in(stand_in).arun(show=show)
        return shown

    assert len(anyio.run(main)) == 1


def test_run_refuses_a_show_that_it_cannot_await(stand_in):
    async def show(_: object) -> None: ...

    with pytest.raises(TypeError, match="arun"):
        sign_in(stand_in, open=lambda _: None).run(show=show)


# The scope.


def test_the_scope_that_was_asked_for_and_not_answered_is_the_one_asked_for(stand_in):
    assert sign_in(stand_in, scope="read write").run().scope == "read write"


@pytest.mark.parametrize(
    ("asked", "answered", "missing"),
    [
        ("read write", "read", "write"),
        ("read write", "write read more", None),
        ("read write", "", "read write"),
        ("read", None, None),
        (None, "read", None),
        ("repo gist", "gist,repo", None),  # GitHub
        ("repo gist", "gist, user", "repo"),
        # Entra answers so; the refresh token shows that the scope was granted
        ("openid offline_access", "openid", None),
        ("https://graph.microsoft.com/.default", "https://graph.microsoft.com/User.Read", None),
        ("openid email", "openid https://www.googleapis.com/auth/userinfo.email", None),
        ("email", "https://www.googleapis.com/auth/webmail", "email"),
    ],
)
def test_a_scope_that_was_not_granted_is_logged(stand_in, caplog, asked, answered, missing):
    stand_in.token = [(200, {**stand_in.token[0][1], **({} if answered is None else {"scope": answered})})]
    token = sign_in(stand_in, scope=asked).run()
    assert token.scope == (asked if answered is None else answered)
    lines = [record.getMessage() for record in caplog.records if "granted" in record.getMessage()]
    assert bool(lines) is bool(missing)
    assert not missing or missing in lines[0]


@pytest.mark.parametrize(
    ("scopes_supported", "asked", "words"),
    [
        (["openid", "offline_access"], "openid", "Ask for the scope offline_access"),
        (["openid", "offline_access"], "openid offline_access", "prompt"),
        (["openid"], "openid", "documentation"),
        (None, "openid", "documentation"),
    ],
)
def test_a_missing_refresh_token_says_what_to_ask_for(stand_in, caplog, scopes_supported, asked, words):
    if scopes_supported:
        stand_in.metadata["scopes_supported"] = scopes_supported
    stand_in.token = [(200, {"access_token": "s3cret-access"})]
    assert sign_in(stand_in, scope=asked).run().refresh_token is None
    (line,) = [record.getMessage() for record in caplog.records if "refresh token" in record.getMessage()]
    assert words in line


def test_an_expiry_is_counted_from_the_request(stand_in):
    token = sign_in(stand_in).run()
    assert token.expires_in == 3600
    assert token.expires_at is not None


# Settings.


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"issuer": URL}, TypeError),
        ({"issuer": Issuer("http://id.example.com")}, InsecureOrigin),
        ({"port": -1}, ValueError),
        ({"port": 65_536}, ValueError),
        ({"port": []}, ValueError),
        ({"port": True}, ValueError),
        ({"port": ["8400"]}, ValueError),
        ({"host": "0.0.0.0"}, ValueError),
        ({"host": "192.168.0.1"}, ValueError),
        ({"path": "callback"}, ValueError),
        ({"path": "/callback?a=b"}, ValueError),
        ({"path": "/call back"}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": None}, TypeError),
        ({"timeout": "300"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"port": None}, ValueError),
        ({"path": None}, ValueError),
        ({"host": None}, ValueError),
        ({"host": ["127.0.0.1"]}, ValueError),
        ({"open": None}, TypeError),
        ({"open": "firefox"}, TypeError),
        ({"paste": "text"}, TypeError),
        ({"extra": {"state": "x"}}, ValueError),
        ({"extra": {"response_mode": "fragment"}}, ValueError),
        ({"extra": {"prompt": None, "login_hint": 7}}, TypeError),
        ({"extra": "prompt=consent"}, TypeError),
        ({"client_secret": "s3cret\n"}, ValueError),
        ({"client": httpx.AsyncClient()}, TypeError),
        ({"client": httpx.Client}, TypeError),
        ({"client_auth": "none", "client_secret": "s3cret"}, ValueError),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_immediately(stand_in, settings, error):
    with pytest.raises(error, match=rf"(?i)\b{next(iter(settings))}\b"):
        sign_in(stand_in, **settings)


def test_coroutine_functions_for_open_and_paste_are_refused(stand_in):
    async def function(*_) -> None: ...

    for name in ("open", "paste"):
        with pytest.raises(TypeError, match="plain function"):
            sign_in(stand_in, **{name: function})


def test_an_empty_client_id_is_refused(stand_in):
    with pytest.raises(ValueError, match="client_id"):
        BrowserSignIn(stand_in.issuer(), "")


def test_a_server_without_an_authorization_endpoint_says_so(stand_in, run):
    del stand_in.metadata["authorization_endpoint"]
    with pytest.raises(ReauthError, match="authorization_endpoint"):
        run(sign_in(stand_in))


@pytest.mark.parametrize("kind", [BrowserSignIn, DeviceSignIn])
def test_a_server_that_is_away_ends_the_sign_in_and_nothing_is_tried_again(run, kind):
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused, wie \xfcblich")

    client = httpx.Client(transport=httpx.MockTransport(refuse))
    with pytest.raises(RefreshError, match=r"refused.*begin a new sign-in") as failure:
        run(kind(Issuer(URL), "cli", client=client))
    assert "back-off" not in str(failure.value)
    assert str(failure.value).isascii()
    assert isinstance(failure.value.__cause__, httpx.ConnectError)


@pytest.mark.parametrize(
    ("said", "settings", "words"),
    [
        ({"token_endpoint": None}, {}, "no token_endpoint"),
        ({"token_endpoint_auth_methods_supported": ["none"]}, {"client_secret": "s3cret"}, "takes no client secret"),
    ],
)
def test_a_person_is_not_sent_to_a_server_that_could_give_no_token(stand_in, run, said, settings, words):
    stand_in.metadata.update(said)
    opened: list[str] = []
    with pytest.raises(RefreshError, match=words):
        run(sign_in(stand_in, open=opened.append, timeout=0.1, **settings))
    assert opened == []


def test_endpoints_may_be_given_by_hand(stand_in, run):
    issuer = Issuer.of(authorization_endpoint=f"{URL}/authorize", token_endpoint=f"{URL}/token")
    run(sign_in(stand_in, issuer=issuer))
    assert stand_in.paths == ["/token"]


def test_a_client_with_a_secret_shows_it(stand_in, run):
    run(sign_in(stand_in, client_secret="s3cret", client_auth="client_secret_post"))
    assert stand_in.forms("/token")[0]["client_secret"] == "s3cret"


def test_one_object_signs_in_several_people_at_the_same_time(stand_in):
    """Each run has its own state, verifier and port."""
    waiting = threading.Barrier(3)
    urls: list[str] = []

    def open_(url: str) -> None:
        urls.append(url)
        waiting.wait(20)
        raise Seen

    one = sign_in(stand_in, open=open_)

    def look() -> None:
        with contextlib.suppress(Seen):
            one.run(show=lambda _: None)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    asked = [query_of(url) for url in urls]
    for name in ("state", "code_challenge", "redirect_uri"):
        assert len({one[name] for one in asked}) == 3


def test_guarantee_11_no_repr_and_no_pickle_of_the_settings(stand_in):
    import pickle

    one = sign_in(stand_in, client_secret="s3cret", extra={"login_hint": "s3cret"})
    assert "s3cret" not in repr(one)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(one)


def test_errors_are_pickled_and_come_back(stand_in):
    import pickle

    for error in (SignInDenied("no", error="access_denied"), SignInExpired("late")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.error) == (type(error), str(error), error.error)
    assert SignInDenied.__module__ == SignInExpired.__module__ == "httpx_reauth.signin"


def test_a_token_is_what_it_returns(stand_in):
    assert type(sign_in(stand_in).run()) is Token
