"""Tests of parts of the examples: the cases that no example reaches when it runs as a script."""

from __future__ import annotations

import asyncio
import json
import ssl
import stat
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import httpx
import pytest
from examples_by_name import load
from keyring_backends import KeyringInMemory, use_keyring

from httpx_reauth import Reauth, RefreshError, SignInRequired, Token
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import Answer, AuthorizationServer, ManualClock, faults
from httpx_reauth.testing._contract_steps import locked

# Login, then refresh.


@contextmanager
def accounts(password: str, clock: ManualClock) -> Iterator[tuple[object, Reauth]]:
    login = load("login_then_refresh")
    stand_in = login.Accounts(AuthorizationServer(), "me@example.com", "right")
    with stand_in.server.serve() as url:
        yield stand_in, Reauth(login.refresh_at(url, "me@example.com", password), clock=clock)


def test_a_wrong_password_is_not_tried_again_for_a_minute(clock):
    with accounts("wrong", clock) as (stand_in, auth):
        for seconds in (59, 1, 0):
            with pytest.raises(RefreshError) as failure:
                auth.get_token()
            assert failure.value.status_code == 401
            clock.advance(seconds)
        assert stand_in.asked() == "/login /login"


def test_an_outage_of_the_refresh_does_not_end_in_a_login(clock):
    with accounts("right", clock) as (stand_in, auth):
        auth.get_token()
        clock.advance(3600)
        stand_in.server.api.fail(faults.unavailable())
        with pytest.raises(RefreshError, match="503"):
            auth.get_token()
        assert stand_in.asked() == "/login /refresh"


# A proxy.


class Tunnelled(BaseHTTPRequestHandler):
    """A proxy that forwards everything to the authorization server in memory."""

    protocol_version = "HTTP/1.1"
    server: TlsServer

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.authorization_server.respond(self.command, self.path, self.headers.items(), body)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def do_GET(self):
        self.do_POST()

    def log_message(self, *_):
        pass


class TlsServer(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, authorization_server: AuthorizationServer, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Tunnelled)
        self.authorization_server = authorization_server
        self.socket = context.wrap_socket(self.socket, server_side=True)


def test_a_token_request_goes_through_the_tunnel_of_a_proxy(tls):
    example = load("audience_behind_a_proxy")
    server_side, client_side = tls
    server = AuthorizationServer(clients={"reports": "secret"})
    proxy = example.ForwardProxy()
    with TlsServer(server, server_side) as https:
        thread = threading.Thread(target=https.serve_forever)
        thread.start()
        origin = f"https://127.0.0.1:{https.server_port}"
        with (
            proxy.serve() as proxy_url,
            httpx.Client(proxy=proxy_url, verify=client_side) as token_client,
            httpx.Client(verify=client_side) as api_client,
        ):
            auth = example.make_auth(
                f"{origin}/token", "reports", "secret", audience="a", origins=[origin], client=token_client
            )
            assert api_client.get(f"{origin}/reports", auth=auth).status_code == 200
        https.shutdown()
        thread.join()
    assert (server.token_requests, server.api_requests, server.api_unauthorized) == (1, 1, 0)
    # the proxy sees nothing of the tunnel's contents
    assert proxy.seen == [f"CONNECT 127.0.0.1:{https.server_port} HTTP/1.1"]


# Assertions.


def test_github_refuses_the_assertion_of_another_key_and_the_error_does_not_repeat_it():
    example = load("github_app")
    github = example.GitHub("app", example.new_key().public_key())
    with github.server.serve() as url:
        grant = example.InstallationGrant("app", example.pem(example.new_key()), 42, base_url=url)
        with pytest.raises(RefreshError) as failure:
            Reauth(grant).get_token()
    assert failure.value.status_code == 401
    assert "eyJ" not in str(failure.value)
    assert github.tokens.tokens_issued == 0


def test_githubs_assertion_lives_no_longer_than_ten_minutes_and_its_token_as_long_as_it_says():
    example = load("github_app")
    key = example.new_key()
    grant = example.InstallationGrant("app", example.pem(key), 42)
    flow = grant.flow(Token())
    request = next(flow)
    assert request.url == "https://api.github.com/app/installations/42/access_tokens"
    scheme, assertion = request.headers["Authorization"].split()
    claims = example.jwt.decode(assertion, key.public_key(), algorithms=["RS256"])
    assert (scheme, claims["iss"]) == ("Bearer", "app")
    assert claims["exp"] - claims["iat"] <= 600
    with pytest.raises(StopIteration) as end:
        flow.send(httpx.Response(201, json={"token": "ghs_a", "expires_at": "2030-01-01T00:00:00Z"}))
    token = end.value.value
    assert (token.access_token, token.expires_at) == ("ghs_a", 1_893_456_000)


def test_a_service_accounts_assertion_is_for_its_token_endpoint_only(tmp_path: Path):
    example = load("service_account")
    provider = example.Provider()
    with provider.server.serve() as url:
        file = provider.key_file(url, tmp_path / "key.json")
        grant = example.ServiceAccountGrant(file, "reports.read")
        assert Reauth(grant).get_token().scope == "reports.read"
        provider.token_url = "https://another.example/token"
        with pytest.raises(RefreshError) as failure:
            Reauth(grant).get_token()
    assert failure.value.error == "invalid_grant"
    assert "eyJ" not in str(failure.value)


# The command line.


class Terminal:
    """The command line, with a server, and a user who answers yes to every question."""

    def __init__(self, url: str, file: Path) -> None:
        self.cli = load("cli")
        self.common = ["--issuer", url, "--api", url, "--file", str(file)]
        self.visit = lambda url: httpx.get(url, follow_redirects=True)

    def run(self, *words: str, open_: Callable[[str], object] | None = None) -> int:
        enter = lambda prompt: self.visit(prompt.verification_uri_complete)  # noqa: E731
        person = self.cli.Person(open_ or self.visit, enter)
        return self.cli.run(self.cli.parsed([*self.common, *words]), person)


@contextmanager
def command_line(folder: Path, **settings) -> Iterator[tuple[Terminal, AuthorizationServer]]:
    server = AuthorizationServer(clients={"my-cli": None}, device_interval=0.0, **settings)
    with server.serve() as url:
        yield Terminal(url, folder / "folder" / "token.json"), server


@pytest.mark.skipif(sys.platform == "win32", reason="what a file's mode says there is not who may read it")
@pytest.mark.parametrize("words", [["login"], ["login", "--device"]])
def test_the_command_lines_token_is_in_a_file_that_nobody_else_can_read(tmp_path: Path, words):
    with command_line(tmp_path) as (terminal, server):
        assert terminal.run(*words) == 0
    file = tmp_path / "folder" / "token.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert server.is_good(json.loads(file.read_text())["access_token"])


def test_the_command_line_asks_to_sign_in_when_the_refresh_token_is_dead(tmp_path: Path, capsys):
    with command_line(tmp_path, resource=lambda _: {"name": "[red]Ada"}) as (terminal, server):
        terminal.run("login")
        requests = server.token_requests
        statuses = [terminal.run("whoami")]
        server.revoke_access_tokens()
        statuses += [terminal.run("whoami")]
        server.revoke_access_tokens()
        server.token_endpoint.fail_always(faults.reply(500))
        statuses += [terminal.run("whoami")]
        server.token_endpoint.heal()
        server.revoke_refresh_tokens()
        statuses += [terminal.run("whoami")]
    assert statuses == [0, 0, 2, 1]
    *_, first, second, third, last = capsys.readouterr().out.splitlines()
    assert (first, second, last) == ("[red]Ada", "[red]Ada", "You are not signed in. Run: cli.py login")
    assert third.startswith("That did not work: The token endpoint gave no token (status 500)")
    assert (server.refreshes, server.token_requests - requests) == (1, 3)


@pytest.mark.parametrize("words", [["login"], ["login", "--device"]])
def test_a_user_who_refuses_at_the_command_line_is_not_signed_in(tmp_path: Path, capsys, words):
    with command_line(tmp_path, consent=False) as (terminal, _):
        assert terminal.run(*words) == 1
        assert terminal.run("whoami") == 1
    assert "access_denied" in capsys.readouterr().out
    assert not (tmp_path / "folder" / "token.json").exists()


def test_the_command_line_may_be_interrupted(tmp_path: Path, capsys):
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with command_line(tmp_path) as (terminal, _):
        assert terminal.run("login", open_=interrupt) == 130
    assert capsys.readouterr().out.splitlines()[-1] == "Interrupted."


def test_the_command_line_says_what_is_wrong_with_an_address_or_an_answer(tmp_path: Path, capsys):
    html = Answer(200, (("Content-Type", "text/html"),), b"<p>Hello")
    with command_line(tmp_path, resource=lambda _: html) as (terminal, _):
        assert terminal.run("login") == 0
        assert terminal.run("whoami") == 2
        assert terminal.run("--issuer", "id.example.com", "whoami") == 2
    assert capsys.readouterr().out.count("That did not work: ") == 2


def test_the_command_line_says_that_no_refresh_token_came(tmp_path: Path, capsys):
    cannot = {"access_token": "a", "expires_in": 3600}
    with command_line(tmp_path) as (terminal, server):
        server.token_endpoint.fail(faults.reply(200, cannot))
        assert terminal.run("login") == 0
        assert "no refresh token" in capsys.readouterr().out


def test_the_command_line_keeps_its_token_in_the_desktops_secret_store(tmp_path: Path, capsys):
    with (
        use_keyring(KeyringInMemory()),
        command_line(tmp_path, resource=lambda _: {"sub": "ada"}) as (terminal, _),
    ):
        terminal.common += ["--storage", "keyring"]
        assert [terminal.run(word) for word in ("login", "whoami", "logout", "whoami")] == [0, 0, 0, 1]
    assert "ada" in capsys.readouterr().out
    assert not (tmp_path / "folder").exists()


def test_the_command_line_reads_its_arguments(capsys, monkeypatch):
    cli = load("cli")
    monkeypatch.setattr(cli, "run", lambda args, person: (args.command, args.issuer, person.open))
    assert cli.main(["--issuer", "https://a.example.com", "login"]) == (
        "login",
        "https://a.example.com",
        webbrowser.open,
    )
    with pytest.raises(SystemExit):
        cli.main(["nonsense"])
    assert "invalid choice" in capsys.readouterr().err


# The service.


def test_the_service_finds_its_users_again_and_says_when_to_come_again():
    example = load("fastapi_service")
    storages = {"alice": MemoryStorage()}

    async def ask(app, path="/summary"):
        browser = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test")
        async with browser:
            return await browser.get(path, headers={"X-User": "alice"})

    async def main(url: str) -> None:
        grant = RefreshTokenGrant(f"{url}/token", "my-service")
        with locked(storages["alice"]):
            storages["alice"].save(server.issue(access_token=False))
        for _ in range(2):  # two processes, one after the other
            app = example.make_app(url, grant, storages.__getitem__)
            async with app.router.lifespan_context(app):
                assert (await ask(app)).json() == {"user": "alice", "asked": "/me"}
        assert server.token_requests == 1

        server.revoke_access_tokens()
        server.token_endpoint.fail_always(faults.too_many_requests(retry_after=60))
        async with app.router.lifespan_context(app):
            answer = await ask(app)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")

    server = AuthorizationServer()
    with server.serve() as url:
        asyncio.run(main(url))


def test_the_services_lifespan_waits_for_a_refresh_under_way():
    example = load("fastapi_service")
    storage = MemoryStorage()

    async def main(url: str) -> None:
        app = example.make_app(url, RefreshTokenGrant(f"{url}/token", "my-service"), lambda _: storage)
        with locked(storage):
            storage.save(server.issue(access_token=False))
        lifespan = app.router.lifespan_context(app)
        await lifespan.__aenter__()
        auth = app.state.pool["alice"]
        with server.token_endpoint.hold() as gate:
            waiting = asyncio.ensure_future(auth.aget_token())
            await server.await_until(lambda: gate.held == 1)
            waiting.cancel()
            closing = asyncio.ensure_future(lifespan.__aexit__(None, None, None))
            await anyio.wait_all_tasks_blocked()
            assert not closing.done()
        await closing
        assert auth.store.state.status == "fulfilled"

    server = AuthorizationServer()
    with server.serve() as url:
        asyncio.run(main(url))
    assert server.tokens_issued == 1
    with locked(storage):
        assert storage.load().access_token.startswith("access-")


# The SDKs.


def counting(package, module, grant, server):
    """Yield a client of `package`, and a counter of the requests sent with it."""
    sent = []

    class Client(package.Client):
        def send(self, request, **options):
            sent.append(request.url.path)
            return super().send(request, **options)

    return Client(auth=module.Reauth(grant, token=server.issue(access_token=False))), sent


def test_the_sdks_raise_for_our_errors_what_the_example_says():
    sdks = load("sdks")
    import anthropic
    import httpx2
    import openai

    import httpx_reauth.httpx2

    def of_openai(client, url):
        return openai.OpenAI(base_url=url, api_key="x", http_client=client, max_retries=1)

    def of_anthropic(client, url):
        return anthropic.Anthropic(base_url=url, auth_token="x", http_client=client, max_retries=1)

    with pytest.raises(TypeError, match="httpx2"), httpx.Client() as client:
        of_anthropic(client, "http://127.0.0.1")
    assert openai.DEFAULT_MAX_RETRIES == anthropic.DEFAULT_MAX_RETRIES == 2

    cases = {
        "openai, httpx": (httpx, httpx_reauth, of_openai),
        "openai, httpx2": (httpx2, httpx_reauth.httpx2, of_openai),
        "anthropic, httpx2": (httpx2, httpx_reauth.httpx2, of_anthropic),
    }
    raised, sent, asked = {}, {}, {}
    for name, (package, module, make) in cases.items():
        for error in ("invalid_client", "invalid_grant"):
            server = AuthorizationServer()
            server.token_endpoint.fail_always(faults.reply(400, {"error": error}))
            with server.serve() as url:
                client, paths = counting(package, module, RefreshTokenGrant(f"{url}/token", "my-app"), server)
                with client, pytest.raises(Exception) as failure:  # noqa: PT011 - the test asks which exception it is
                    make(client, url).models.list()
            ours = sdks.reauth_error(failure.value)
            assert isinstance(ours, SignInRequired if error == "invalid_grant" else RefreshError)
            raised[name, error] = type(failure.value).__name__
            sent[name, error], asked[name, error] = len(paths), server.token_requests
    assert raised == {
        ("openai, httpx", "invalid_client"): "APIConnectionError",
        ("openai, httpx", "invalid_grant"): "SignInRequired",
        ("openai, httpx2", "invalid_client"): "APIConnectionError",
        ("openai, httpx2", "invalid_grant"): "SignInRequired",
        ("anthropic, httpx2", "invalid_client"): "APIConnectionError",
        ("anthropic, httpx2", "invalid_grant"): "APIConnectionError",
    }
    assert sent == {case: 1 if error == "SignInRequired" else 2 for case, error in raised.items()}
    assert set(asked.values()) == {1}


# Other headers.


def test_a_replay_carries_one_session_the_other_cookies_and_the_new_csrf_token():
    example = load("header_cookie_csrf")
    site = example.Site("me", "secret")
    with site.logins.serve() as logins, site.orders.serve() as orders:
        auth = example.session_auth(f"{logins}/login", "me", "secret", orders)
        with httpx.Client(base_url=orders, auth=auth, cookies={"lang": "en"}) as client:
            client.post("/orders", json={"item": "tea"})
            site.orders.revoke_access_tokens()
            client.post("/orders", json={"item": "tea"})
    first, refused, again = site.orders.requests
    assert refused.header("cookie") == first.header("cookie")
    for request in (refused, again):
        assert request.header("cookie").startswith("lang=en; session=")
        assert request.header("cookie").count("session=") == 1
        assert request.header("x-csrf-token") == site.csrf[example.session_of(request)]
        assert json.loads(request.body) == {"item": "tea"}
    assert again.header("cookie") != refused.header("cookie")


def test_a_wrong_password_of_the_site_is_an_error_that_does_not_repeat_it():
    example = load("header_cookie_csrf")
    site = example.Site("me", "secret")
    with site.logins.serve() as logins, pytest.raises(RefreshError) as failure:
        example.session_auth(f"{logins}/login", "me", "mistaken", "https://site.test").get_token()
    assert failure.value.status_code == 401
    assert "mistaken" not in str(failure.value)
