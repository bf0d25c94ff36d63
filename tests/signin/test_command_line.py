"""Tests of `examples/cli.py`, and of a sign-out with revocation, at oidc-provider."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import node_servers
import pytest
from examples_by_name import load
from node_servers import NATIVE, Person
from signing_in import get

from httpx_reauth import Reauth, SignInRequired, Token
from httpx_reauth.oauth import ClientCredentialsGrant, Issuer, RefreshTokenGrant
from httpx_reauth.signin import BrowserSignIn
from httpx_reauth.storage import FileStorage

SERVICE = {
    "client_id": "service",
    "client_secret": "s3cret-of-the-service",
    "grant_types": ["client_credentials"],
    "redirect_uris": [],
    "response_types": [],
}


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with node_servers.running("oidc_provider.mjs", {"clients": [NATIVE, SERVICE]}) as url:
        yield url


def quiet(_: object) -> None:
    """Show nothing."""


def sign_in(provider: str) -> Token:
    """Sign a user in who consents, and return the token."""
    settings: dict[str, Any] = {"scope": "openid offline_access", "extra": {"prompt": "consent"}}
    return BrowserSignIn(Issuer(provider), "cli", open=Person(), **settings).run(show=quiet)


def is_served(provider: str, access_token: str) -> bool:
    answer = get(f"{provider}/me", headers={"Authorization": f"Bearer {access_token}"})
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


# The command line


@pytest.fixture
def run(provider: str, tmp_path: Path) -> Callable[..., int]:
    """Return a function that runs one command, as a new process would.

    The file keeps the token between two commands.
    """
    cli = load("cli")
    common = ["--issuer", provider, "--api", provider, "--client-id", "cli", "--file", str(tmp_path / "token.json")]

    def command(*words: str) -> int:
        return cli.run(cli.parsed([*common, *words]), cli.Person(Person(), quiet))

    return command


def test_the_command_line_signs_in_and_logout_revokes_the_token_at_the_server(provider, run, tmp_path, capsys):
    assert [run("login"), run("whoami")] == [0, 0]
    stored = json.loads((tmp_path / "token.json").read_text())
    assert is_served(provider, stored["access_token"])
    before = len(get(f"{provider}/the-tests/seen").json())
    assert [run("logout"), run("whoami")] == [0, 1]
    seen = get(f"{provider}/the-tests/seen").json()[before:]
    assert [one for one in seen if "revocation" in one[1]] == [["POST", "/token/revocation", 200]]
    assert not is_served(provider, stored["access_token"])
    with pytest.raises(SignInRequired):
        RefreshTokenGrant(Issuer(provider), "cli")(Token(refresh_token=stored["refresh_token"]))
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "ada",
        "You are signed out.",
        "You are not signed in. Run: cli.py login",
    ]


def test_logout_works_though_nobody_is_signed_in(run, capsys):
    assert [run("logout"), run("logout")] == [0, 0]
    assert capsys.readouterr().out.splitlines() == ["You are signed out."] * 2


def test_logout_says_that_the_server_did_not_revoke_and_forgets_the_token_all_the_same(provider, run, tmp_path, capsys):
    run("login")
    stored = json.loads((tmp_path / "token.json").read_text())
    assert stored["refresh_token"]
    cli = load("cli")
    elsewhere = ["--issuer", "http://127.0.0.1:9", "--api", provider, "--client-id", "cli"]
    args = cli.parsed([*elsewhere, "--file", str(tmp_path / "token.json"), "logout"])
    assert cli.run(args, cli.Person()) == 0
    assert "may still accept the old token" in capsys.readouterr().out
    assert run("whoami") == 1


# The library


@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
def test_sign_out_with_revocation_ends_both_tokens_at_a_real_server(provider, way):
    auth = Reauth(RefreshTokenGrant(Issuer(provider), "cli"), token=sign_in(provider))
    token = auth.renew()  # the server rotates: the newer refresh token must be revoked
    assert is_served(provider, token.access_token)
    if way == "sync":
        auth.sign_out(revoke=True)
    else:

        async def sign_out() -> None:
            await auth.asign_out(revoke=True)

        anyio.run(sign_out, backend=way)
    assert not is_served(provider, token.access_token)
    with pytest.raises(SignInRequired):
        RefreshTokenGrant(Issuer(provider), "cli")(token)


def test_what_another_process_has_rotated_is_what_is_revoked(provider, tmp_path):
    path, grant = tmp_path / "token.json", RefreshTokenGrant(Issuer(provider), "cli")
    one = Reauth(grant, token=sign_in(provider), storage=FileStorage(path))
    one.get_token()
    newer = Reauth(grant, storage=FileStorage(path)).renew()
    assert one.token is not None
    assert one.token.refresh_token != newer.refresh_token
    one.sign_out(revoke=True)
    assert not is_served(provider, newer.access_token)


def test_a_service_without_a_refresh_token_revokes_its_access_token(provider):
    events: list[str] = []
    auth = Reauth(ClientCredentialsGrant(Issuer(provider), "service", SERVICE["client_secret"]))
    auth.store.subscribe(lambda _, action: events.append(type(action).__name__))
    token = auth.get_token()
    auth.sign_out(revoke=True)
    assert "RevokeFailed" not in events
    form = {"token": token.access_token}
    basic = ("service", str(SERVICE["client_secret"]))
    with httpx.Client(trust_env=False) as client:
        introspected = client.post(f"{provider}/token/introspection", data=form, auth=basic).json()
    assert introspected == {"active": False}
