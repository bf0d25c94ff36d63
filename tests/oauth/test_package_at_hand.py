"""Tests of the HTTP library that a grant uses: httpx or httpx2, whichever is imported or installed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Generator
from dataclasses import replace

import httpx
import httpx2
import pytest
from raw_server import Connection, RawServer, answers

import httpx_reauth
import httpx_reauth.httpx2
from httpx_reauth import Token
from httpx_reauth.oauth import ClientCredentialsGrant, Grant, MetadataRequest, RefreshTokenGrant, TokenRequest

URL = "https://id.example.com/token"
OLD = Token("old", refresh_token="r-1")
GRANT = RefreshTokenGrant(URL, "app")

each_reauth_class = pytest.mark.parametrize(
    ("reauth", "name"),
    [(httpx_reauth.Reauth, "httpx"), (httpx_reauth.httpx2.Reauth, "httpx2")],
    ids=["httpx", "httpx2"],
)


class Posts:
    """A server's script that answers with a token, and keeps what was posted."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def __call__(self, connection: Connection) -> None:
        self.seen.append(connection.read_request())
        connection.answer()

    @property
    def user_agents(self) -> list[str]:
        lines = [line for request in self.seen for line in request.decode().splitlines()]
        return [
            line.partition("python-")[2].partition("/")[0] for line in lines if line.lower().startswith("user-agent")
        ]


@each_reauth_class
@pytest.mark.parametrize("is_wrapped", [False, True], ids=["the grant", "a function that calls it"])
def test_token_requests_go_out_by_the_package_of_the_auth_object(reauth, name, is_wrapped):
    posts = Posts()
    with RawServer(posts) as server:
        grant = RefreshTokenGrant(server.url, "app")
        auth = reauth((lambda token: grant(token)) if is_wrapped else grant, token=Token(refresh_token="r"))  # noqa: PLW0108 - no grant
        assert auth.get_token().access_token == "fresh"
    assert posts.user_agents == [name]


def test_called_directly_a_grant_uses_the_first_that_is_installed(monkeypatch):
    posts = Posts()
    with RawServer(posts) as server:
        grant = ClientCredentialsGrant(server.url, "me", "secret")
        grant(OLD)
        monkeypatch.setitem(sys.modules, "httpx", None)  # what an import of it finds that is not installed
        grant(OLD)
        monkeypatch.setitem(sys.modules, "httpx2", None)
        with pytest.raises(ImportError, match="pip install"):
            grant(OLD)
    assert posts.user_agents == ["httpx", "httpx2"]


@each_reauth_class
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_client_of_either_package_serves_either_auth_object(reauth, name, package):
    seen = []

    def handler(request):
        seen.append(request)
        return package.Response(200, json={"access_token": "fresh"})

    with package.Client(transport=package.MockTransport(handler)) as client:
        auth = reauth(replace(GRANT, client=client), token=OLD)
        assert auth.get_token(rejected=OLD).access_token == "fresh"
    assert isinstance(seen[0], package.Request)


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_failures_of_either_packages_client_mean_the_same(package):
    def fails_with(error: str) -> httpx_reauth.RefreshError:
        def handler(request):
            raise getattr(package, error)("no way")

        client = package.Client(transport=package.MockTransport(handler))
        with pytest.raises(httpx_reauth.RefreshError) as failure:
            replace(GRANT, client=client)(OLD)
        assert isinstance(failure.value.__cause__, getattr(package, error))
        return failure.value

    assert "outcome is unknown" in str(fails_with("ReadError"))
    assert "never went out" in str(fails_with("ProxyError"))


class Session:
    """A client of another library."""


@pytest.mark.parametrize(
    ("client", "advice"),
    [
        (httpx.AsyncClient, "no AsyncClient"),
        (httpx.AsyncClient(), "no AsyncClient"),
        (httpx2.AsyncClient(), "no AsyncClient"),
        (httpx.Client, r"httpx\.Client\(\)"),
        (httpx2.Client, r"httpx2\.Client\(\)"),
        (Session(), r"Session"),
        ("https://proxy.example.com", r"str"),
    ],
)
def test_another_kind_of_client_is_refused_with_what_is_meant(client, advice):
    with pytest.raises(TypeError, match=rf"(?s)httpx\.Client or an httpx2\.Client.*{advice}"):
        replace(GRANT, client=client)

    class Own(Grant):
        def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
            raise AssertionError
            yield

    Own.client = client
    with pytest.raises(TypeError, match=advice):
        Own()(OLD)


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_metadata_is_got_without_secrets_and_without_following_redirects(package):
    seen = []

    def handler(request):
        seen.append(request)
        if request.method == "GET":
            return package.Response(302, headers={"location": "https://elsewhere.example.com/"})
        return package.Response(200, json={"access_token": "fresh"})

    class Own(Grant):
        def flow(self, token: Token, /) -> Generator[TokenRequest | MetadataRequest, httpx.Response, Token]:
            document = yield MetadataRequest("https://id.example.com/.well-known/oauth-authorization-server")
            response = yield TokenRequest(URL, {"status": str(document.status_code)})
            return Token.from_response(response)

    client = package.Client(
        transport=package.MockTransport(handler), follow_redirects=True, headers={"authorization": "x"}, auth=("a", "b")
    )
    Own.client = client
    assert Own()(OLD).access_token == "fresh"
    document, token_request = seen
    assert (document.method, document.headers["accept"], document.content) == ("GET", "application/json", b"")
    assert "authorization" not in document.headers
    assert token_request.content == b"status=302"


def test_metadata_may_be_asked_for_twice():
    class Own(Grant):
        url = ""

        def flow(self, token: Token, /) -> Generator[TokenRequest | MetadataRequest, httpx.Response, Token]:
            response = yield MetadataRequest(self.url)
            return Token.from_response(response)

    with RawServer(lambda _: None, answers()) as server:
        Own.url = server.url
        assert Own()(OLD).access_token == "fresh"
    assert server.connections == 2


def test_flow_that_yields_something_else_is_said():
    class Own(Grant):
        def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
            yield "https://id.example.com/token"
            raise AssertionError

    with pytest.raises(TypeError, match="TokenRequest or a MetadataRequest, not str"):
        Own()(OLD)


WITHOUT_HTTPX = """
    import sys

    class NoHttpx:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("httpx", "httpcore"):
                raise ModuleNotFoundError(f"No module named {name!r}")

    sys.meta_path.insert(0, NoHttpx())

    import anyio
    import httpx2
    import httpx_reauth.httpx2
    from httpx_reauth import RefreshError, ReauthPool, SignInRequired, Token, TokenStore
    from httpx_reauth.httpx2 import Reauth
    from httpx_reauth.oauth import ClientCredentialsGrant, RefreshTokenGrant
    from httpx_reauth.storage import MemoryStorage

    url, api, refused = sys.argv[1:]
    grant = ClientCredentialsGrant(url, "me", "secret")
    assert grant(Token()).access_token == "fresh"

    auth = Reauth(grant, storage=MemoryStorage())
    with auth, httpx2.Client(auth=auth) as client:
        assert client.get(api).status_code == 200
    auth.sign_in(Token("a", refresh_token="r"))
    auth.sign_out()

    async def main():
        auth = Reauth(RefreshTokenGrant(url, "me"), token=Token(refresh_token="r"))
        async with auth, httpx2.AsyncClient(auth=auth) as client:
            assert (await client.get(api)).status_code == 200

    anyio.run(main)
    anyio.run(main, backend="trio")

    try:
        httpx2.get(api, auth=Reauth(RefreshTokenGrant(refused, "me"), token=Token(refresh_token="r")))
    except httpx2.TransportError as error:
        assert isinstance(error, RefreshError)
    else:
        raise AssertionError

    try:
        from httpx_reauth import Reauth
    except ModuleNotFoundError as error:
        assert "httpx" in str(error)
    # The other grants, an issuer, a workload's identity, and the test kit.
    import tempfile
    from httpx_reauth.identity import FileIdentity
    from httpx_reauth.oauth import Issuer, JWTBearerGrant, PrivateKeyJWT, SignedAssertion, TokenExchangeGrant
    from httpx_reauth.testing import AuthorizationServer, ManualClock, faults
    from joserfc.jwk import ECKey

    key = ECKey.generate_key("P-256")
    keys = {"app": key.as_pem(private=False)}
    server = AuthorizationServer(client_keys=keys, trusted_issuers=keys, device_interval=0.0)
    with server, server.serve() as base_url:
        issuer, app = Issuer(base_url), PrivateKeyJWT(key.as_pem(private=True))
        server.token_endpoint.fail(faults.unavailable())
        first = Reauth(ClientCredentialsGrant(issuer, "app", client_auth=app))
        second = Reauth(TokenExchangeGrant(issuer, "app", client_auth=app, subject_token=first))
        with tempfile.NamedTemporaryFile("w") as file:
            signed = SignedAssertion(key.as_pem(private=True), iss="app", sub="app", aud=base_url)
            file.write(signed())
            file.flush()
            third = Reauth(JWTBearerGrant(issuer, assertion=FileIdentity(file.name), client_id="app", client_auth=app))
            with httpx2.Client(base_url=base_url) as client:
                for auth in (first, second, third):
                    assert client.get("/me", auth=auth).status_code == 200
        second.sign_out(revoke=True)
        assert server.tokens_revoked == 1

        # Somebody signs in, with a browser and with a code.
        from httpx_reauth.signin import BrowserSignIn, DeviceSignIn

        def visit(url):
            httpx2.get(url, follow_redirects=True)

        def enter(prompt):
            visit(prompt.verification_uri_complete)

        for backend in ("asyncio", "trio"):
            browser = BrowserSignIn(issuer, "app", client_auth=app, open=visit)
            device = DeviceSignIn(issuer, "app", client_auth=app)
            assert browser.run(show=str).access_token and device.run(show=enter).access_token

            async def sign_in():
                assert (await browser.arun(show=str)).access_token
                assert (await device.arun(show=enter)).access_token

            anyio.run(sign_in, backend=backend)

    clock = ManualClock()
    server = AuthorizationServer(clock=clock)
    with httpx2.Client(transport=server.transport(httpx2)) as posts:
        auth = Reauth(RefreshTokenGrant("https://id.test/token", "me", client=posts), token=server.issue(), clock=clock)
        with httpx2.Client(transport=server.transport(httpx2), auth=auth) as client:
            clock.advance(3600)
            assert client.get("https://api.test/me").status_code == 200
    assert server.token_requests == 1

    assert not {"httpx", "httpcore"} & set(sys.modules)
    print("done")
"""


def test_httpx2_alone_is_enough_for_everything_behind_it():
    with RawServer(answers()) as server, RawServer(answers(503)) as refused:
        arguments = [server.url, server.url.replace("/token", "/me"), refused.url]
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(WITHOUT_HTTPX), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.stdout.strip() == "done", ended.stderr


def test_importing_the_package_imports_neither():
    program = "import httpx_reauth, sys; print({'httpx', 'httpx2'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "set()"
