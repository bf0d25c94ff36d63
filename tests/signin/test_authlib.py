"""Tests of signing in at Authlib's server, which needs no Node.js."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from authlib_people import PeopleServer
from signing_in import get

from httpx_reauth import Reauth
from httpx_reauth.oauth import Issuer, RefreshTokenGrant
from httpx_reauth.signin import BrowserSignIn, DevicePrompt, DeviceSignIn, SignInDenied, SignInExpired


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> Iterator[PeopleServer]:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # else Authlib refuses plain http, even on loopback
    server = PeopleServer()
    with server.serve():
        yield server


def quiet(_: object) -> None:
    """Show nothing."""


def visit(url: str) -> httpx.Response:
    return get(url, follow_redirects=True)


def enter(prompt: DevicePrompt) -> None:
    visit(f"{prompt.verification_uri}?user_code={prompt.user_code}")


@pytest.mark.parametrize(("client_id", "secret"), [("app", None), ("shop", "p%s:s w&rd+\u00fc")])
def test_a_person_signs_in_and_the_token_is_renewed_from_then_on(people, run, client_id, secret):
    """Once a program that users install, and once one with a client secret."""
    issuer = Issuer(people.url)
    token = run(BrowserSignIn(issuer, client_id, client_secret=secret, scope="read", open=visit), show=quiet)
    with Reauth(RefreshTokenGrant(issuer, client_id, secret), token=token) as auth:
        with httpx.Client(base_url=people.url, auth=auth) as client:
            assert client.get("/me").status_code == 200
            people.expire_access_tokens()
            assert client.get("/me").status_code == 200
        assert auth.get_token().scope == "read"
    assert people.reuse_detected == 0
    assert people.codes == {}  # each code can be used once


def test_a_user_who_refuses_is_a_denied_sign_in(people, run):
    people.answer = "no"
    with pytest.raises(SignInDenied) as failure:
        run(BrowserSignIn(Issuer(people.url), "app", open=visit), show=quiet)
    assert failure.value.error == "access_denied"
    assert people.token_requests == 0


def test_a_code_without_its_verifier_is_worth_nothing(people):
    """Another person may see the browser's answer, e.g. in a log of the machine."""
    seen: list[str] = []

    def open_(url: str) -> None:
        seen.append(get(url).headers["location"])
        raise LookupError

    with pytest.raises(LookupError):
        BrowserSignIn(Issuer(people.url), "app", open=open_).run(show=quiet)
    form = {
        "grant_type": "authorization_code",
        "client_id": "app",
        "code": httpx.URL(seen[0]).params["code"],
        "redirect_uri": seen[0].partition("?")[0],
        "code_verifier": "a" * 43,
    }
    answer = httpx.post(f"{people.url}/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_a_person_enters_a_code_and_the_server_slows_the_program_down(people, monkeypatch):
    pauses: list[float] = []
    shown: list[DevicePrompt] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            enter(shown[0])

    monkeypatch.setattr(time, "sleep", sleep)
    token = DeviceSignIn(Issuer(people.url), "app", scope="read").run(show=shown.append)
    assert token.refresh_token
    assert pauses == [0, 5]  # the server's interval is 0 s, and it said `slow_down` once


def test_a_user_refuses_on_another_device(people, run):
    people.polls, people.answer = 1, "no"
    with pytest.raises(SignInDenied) as failure:
        run(DeviceSignIn(Issuer(people.url), "app"), show=enter)
    assert failure.value.error == "access_denied"


def test_a_code_that_the_server_has_forgotten_has_expired(people, run):
    people.polls = 1
    with pytest.raises(SignInExpired):
        run(
            DeviceSignIn(Issuer(people.url), "app"),
            show=lambda _: [one.update(expires_at=0) for one in people.devices.values()],
        )
