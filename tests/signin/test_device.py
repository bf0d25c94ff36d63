"""Tests of signing in on another device: single steps with a clock that does not move, and whole runs."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest
from signing_in import URL

from httpx_reauth import ReauthError, RefreshError, Token
from httpx_reauth.oauth import Issuer, TLSClientAuth, TokenRequest
from httpx_reauth.signin import DevicePrompt, DeviceSignIn, SignInDenied, SignInExpired
from httpx_reauth.signin.steps import Pause, Show
from httpx_reauth.testing import AuthorizationServer, ManualClock

ISSUER = Issuer.of(device_authorization_endpoint=f"{URL}/device", token_endpoint=f"{URL}/token")
DEVICE = {
    "device_code": "s3cret-device",
    "user_code": "WDJB-MJHT",
    "verification_uri": f"{URL}/go",
    "verification_uri_complete": f"{URL}/go?user_code=WDJB-MJHT",
    "expires_in": 600,
    "interval": 5,
}
TOKEN = {"access_token": "s3cret-access", "refresh_token": "s3cret-refresh", "expires_in": 3600}


def answer(status: int, document: object, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=document, headers={name.replace("_", "-"): v for name, v in headers.items()})


def says(error: str, status: int = 400, **headers: str) -> httpx.Response:
    return answer(status, {"error": error}, **headers)


def no_answer() -> RefreshError:
    error = RefreshError("no answer")
    error.__cause__ = httpx.ReadTimeout("slow")
    return error


class Played:
    """A sign-in whose steps the test runs by hand. `polls` are the answers of the token endpoint."""

    def __init__(self, *polls: Any, device: Any = None, settings: dict[str, Any] | None = None) -> None:
        self.pauses: list[float] = []
        self.prompts: list[Any] = []
        self.forms: list[dict[str, Any]] = []
        self.token: Token | None = None
        clock = ManualClock()
        answers = iter([answer(200, DEVICE) if device is None else device, *polls])
        steps = DeviceSignIn(ISSUER, "tv", **(settings or {})).steps(clock)
        step = next(steps)
        try:
            while True:
                match step:
                    case Pause(seconds):
                        self.pauses.append(seconds)
                        clock.advance(seconds)
                        step = steps.send(None)
                    case Show(prompt):
                        self.prompts.append(prompt)
                        step = steps.send(None)
                    case TokenRequest():
                        self.forms.append(dict(step.data))
                        assert step.client_auth.client_id == "tv"
                        said = next(answers, None) or says("authorization_pending")
                        step = steps.throw(said) if isinstance(said, Exception) else steps.send(said)
        except StopIteration as end:
            self.token = end.value


def test_the_code_is_shown_and_the_server_is_asked_until_the_person_is_done():
    played = Played(says("authorization_pending"), says("authorization_pending"), answer(200, TOKEN))
    assert played.token.access_token == "s3cret-access"
    assert played.pauses == [5, 5, 5]
    assert played.prompts == [DevicePrompt(f"{URL}/go", "WDJB-MJHT", f"{URL}/go?user_code=WDJB-MJHT", expires_in=600)]
    assert played.forms[0] == {"client_id": "tv"}
    grant_type = "urn:ietf:params:oauth:grant-type:device_code"
    poll = {"grant_type": grant_type, "device_code": "s3cret-device", "client_id": "tv"}
    assert played.forms[1:] == [poll] * 3


PENDING, SLOW_DOWN = says("authorization_pending"), says("slow_down")
LATER = says("server_error", 503)


@pytest.mark.parametrize(
    ("polls", "pauses"),
    [
        ([PENDING, PENDING, PENDING], [5, 5, 5, 5]),
        ([SLOW_DOWN], [5, 10]),
        ([SLOW_DOWN, PENDING, SLOW_DOWN, PENDING], [5, 10, 10, 15, 15]),
        ([LATER, PENDING], [5, 10, 10]),
        ([LATER, LATER, LATER, LATER, LATER, PENDING], [5, 10, 20, 40, 60, 60, 60]),
        ([no_answer(), PENDING], [5, 10, 10]),
        ([says("x", 503, Retry_After="33"), PENDING], [5, 33, 10]),
        ([says("slow_down", Retry_After="33"), PENDING], [5, 33, 10]),
        ([says("authorization_pending", Retry_After="7"), PENDING], [5, 7, 5]),
        ([says("too_many", 429, Retry_After="1"), PENDING], [5, 10, 10]),
        ([says("authorization_pending", 428), PENDING], [5, 5, 5]),  # Google answers with this status
        ([says("authorization_pending", 200), says("slow_down", 200)], [5, 5, 10]),  # GitHub answers with this status
        ([says("temporarily_unavailable"), PENDING], [5, 10, 10]),
    ],
)
def test_how_long_it_waits_between_two_polls(polls, pauses):
    assert Played(*polls, answer(200, TOKEN)).pauses == pauses


def test_a_server_in_trouble_gets_time_though_it_wanted_to_be_asked_without_a_pause():
    polls = [PENDING, LATER, no_answer(), LATER, answer(200, TOKEN)]
    assert Played(*polls, device=answer(200, {**DEVICE, "interval": 0})).pauses == [0, 0, 1, 2, 4]


@pytest.mark.parametrize(
    ("said", "first"), [(1, 1), ("7", 7), (0, 0), (None, 5), ("soon", 5), (-1, 5), (True, 5), ([], 5), (1e99, 5)]
)
def test_the_first_interval_is_what_the_server_says_else_five_seconds(said, first):
    assert Played(answer(200, TOKEN), device=answer(200, {**DEVICE, "interval": said})).pauses == [first]


def test_the_code_ends_when_the_server_said_without_a_last_poll():
    with pytest.raises(SignInExpired, match="12 s"):
        Played(device=answer(200, {**DEVICE, "expires_in": 12}))


def test_the_server_may_say_that_the_code_has_expired():
    with pytest.raises(SignInExpired) as failure:
        Played(PENDING, says("expired_token"))
    assert failure.value.error == "expired_token"
    assert isinstance(failure.value, ReauthError)


@pytest.mark.parametrize("error", ["access_denied", "invalid_grant", "unauthorized_client", "invalid_client"])
def test_a_refusal_ends_the_sign_in(error):
    with pytest.raises(SignInDenied) as failure:
        Played(PENDING, answer(400, {"error": error, "error_description": "because"}), answer(200, TOKEN))
    assert (failure.value.error, failure.value.error_description) == (error, "because")


def test_an_error_that_nobody_knows_ends_it_under_any_status():
    for status in (200, 400, 403):
        with pytest.raises(SignInDenied) as failure:
            Played(PENDING, says("who_knows", status))
        assert failure.value.error == "who_knows"


@pytest.mark.parametrize(
    "broken",
    [answer(404, {}), answer(200, {"access_token": ""}), answer(200, []), httpx.Response(200, html="<p>Hello</p>")],
)
def test_an_answer_that_cannot_be_read_ends_the_sign_in(broken):
    with pytest.raises(ReauthError) as failure:
        Played(PENDING, broken)
    assert "back-off" not in str(failure.value)


def test_what_is_asked_for_goes_into_the_first_request_and_the_resource_into_both():
    resource = ["https://a.example.com", "https://b.example.com"]
    settings = {"scope": ["read", "write"], "resource": resource, "extra": {"audience": "x"}}
    played = Played(answer(200, TOKEN), settings=settings)
    assert played.forms[0] == {
        "client_id": "tv",
        "scope": "read write",
        "resource": tuple(resource),
        "audience": "x",
    }
    assert played.forms[1]["resource"] == tuple(resource)
    assert "scope" not in played.forms[1]
    assert played.token.scope == "read write"


@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post"])
def test_the_form_names_the_client_though_it_shows_its_secret_in_a_header(stand_in, client_auth):
    """Google and WSO2 read the client's name only in the form."""
    stand_in.device[0][1]["interval"] = 0
    settings = {"client_secret": "s3cret", "client_auth": client_auth, "client": stand_in.client()}
    assert DeviceSignIn(stand_in.issuer(), "tv", **settings).run(show=str).access_token
    assert [form["client_id"] for path in ("/device", "/token") for form in stand_in.forms(path)] == ["tv", "tv"]


def test_a_client_with_a_certificate_uses_the_aliases_for_it():
    """RFC 8705 section 5 says so. `client=` has the certificate itself."""
    aliases = {"device_authorization_endpoint": f"{URL}/mtls/device", "token_endpoint": f"{URL}/mtls/token"}
    issuer = Issuer.of(
        device_authorization_endpoint=f"{URL}/device", token_endpoint=f"{URL}/token", mtls_endpoint_aliases=aliases
    )
    steps = DeviceSignIn(issuer, "tv", client_auth=TLSClientAuth()).steps(ManualClock())
    assert next(steps).url == f"{URL}/mtls/device"
    assert isinstance(steps.send(answer(200, DEVICE)), Show)
    assert isinstance(steps.send(None), Pause)
    assert steps.send(None).url == f"{URL}/mtls/token"
    steps.close()


@pytest.mark.parametrize(
    "device",
    [
        {**DEVICE, "device_code": None},
        {**DEVICE, "user_code": ""},
        {**DEVICE, "verification_uri": None},
        {**DEVICE, "verification_uri": "javascript:alert(1)"},
        {**DEVICE, "verification_uri": "http://["},
        {**DEVICE, "device_code": 7},
        {},
        [],
        "text",
    ],
)
def test_an_answer_with_which_nobody_can_sign_in_says_so(device):
    with pytest.raises(ReauthError, match="verification_uri"):
        Played(device=answer(200, device))


def test_what_is_shown_has_no_control_characters_and_an_odd_link_is_left_out():
    strange = {**DEVICE, "user_code": "WD\x1b[2JJB", "verification_uri_complete": "tel:112"}
    played = Played(answer(200, TOKEN), device=answer(200, strange))
    assert played.prompts[0].user_code == "WD?[2JJB"
    assert played.prompts[0].verification_uri_complete is None
    assert "\n" not in str(played.prompts[0])


def test_googles_names_are_read():
    google = {**DEVICE, "verification_url": "https://www.google.com/device"}
    del google["verification_uri"], google["verification_uri_complete"]
    played = Played(answer(200, TOKEN), device=answer(200, google))
    assert played.prompts[0].verification_uri == "https://www.google.com/device"


@pytest.mark.parametrize(("said", "lifetime"), [(None, 600), ("900", 900), ("for ever", 600), (1e30, 600), (-5, 600)])
def test_a_code_without_a_usable_life_lives_ten_minutes(said, lifetime):
    played = Played(answer(200, TOKEN), device=answer(200, {**DEVICE, "expires_in": said}))
    assert played.prompts[0].expires_in == lifetime


@pytest.mark.parametrize(
    ("first", "error"),
    [
        (says("invalid_client", 401), SignInDenied),
        (says("invalid_scope"), SignInDenied),
        (answer(503, {}), RefreshError),
        (answer(404, {}), RefreshError),
        (no_answer(), RefreshError),
    ],
)
def test_a_first_request_that_fails_ends_it(first, error):
    with pytest.raises(error) as failure:
        Played(device=first)
    assert "back-off" not in str(failure.value)


def test_a_prompt_reads_as_text():
    text = str(DevicePrompt(f"{URL}/go", "WDJB-MJHT", f"{URL}/go?user_code=WDJB-MJHT", expires_in=600))
    assert text.splitlines()[0] == f"Open {URL}/go on any device and enter the code WDJB-MJHT"
    assert f"{URL}/go?user_code=WDJB-MJHT" in text


# Whole runs, against the test kit's server.


@pytest.fixture
def kit() -> AuthorizationServer:
    return AuthorizationServer(clients={"tv": None}, device_interval=0.0, scopes=["read", "offline_access"])


def sign_in(kit: AuthorizationServer, package: Any = httpx, **settings: Any) -> DeviceSignIn:
    client = package.Client(transport=kit.transport(package))
    return DeviceSignIn(Issuer(URL), "tv", client=client, **settings)


@pytest.mark.parametrize("package", ["httpx", "httpx2"])
def test_a_sign_in_ends_in_the_token(kit, run, package):
    def show(prompt: DevicePrompt) -> None:
        assert kit.approve_device(prompt.user_code) == 1

    token = run(sign_in(kit, pytest.importorskip(package)), show=show)
    assert token.access_token
    assert token.refresh_token


def test_by_default_the_code_is_printed_to_the_standard_error_stream(kit, run, capsys):
    kit.consent = False
    waiting = threading.Event()

    def deny() -> None:
        while not kit.deny_device():
            assert not waiting.wait(0.01)

    thread = threading.Thread(target=deny)
    thread.start()
    with pytest.raises(SignInDenied):
        run(sign_in(kit))
    thread.join(20)
    assert "enter the code" in capsys.readouterr().err


def test_a_person_who_says_no_and_a_code_that_expires(kit, run):
    with pytest.raises(SignInDenied) as failure:
        run(sign_in(kit), show=lambda prompt: kit.deny_device(prompt.user_code))
    assert failure.value.error == "access_denied"
    with pytest.raises(SignInExpired):
        run(sign_in(kit), show=lambda _: kit.expire_device_codes())


def test_a_mistake_in_show_is_raised_as_it_is(kit, run):
    def show(_: DevicePrompt) -> None:
        raise KeyError("mistake")

    with pytest.raises(KeyError, match="mistake"):
        run(sign_in(kit), show=show)


def test_a_server_without_that_endpoint_says_so(stand_in, run):
    del stand_in.metadata["device_authorization_endpoint"]
    with pytest.raises(ReauthError, match="device_authorization_endpoint"):
        run(DeviceSignIn(stand_in.issuer(), "tv", client=stand_in.client()))


def test_the_wait_between_two_polls_is_real(kit, run):
    """The server's clock runs, and it says `slow_down` to polls that come too early."""
    kit.device_interval = 0.3
    run(sign_in(kit), show=lambda prompt: kit.approve_device(prompt.user_code))
    assert kit.token_requests == 1


def test_guarantee_11_an_echo_of_the_device_code_is_not_repeated(stand_in, run):
    stand_in.device = [(200, {**DEVICE, "interval": 0})]
    stand_in.token = [(400, {"error": "invalid_grant", "error_description": "unknown: s3cret-device"})]
    with pytest.raises(SignInDenied) as failure:
        run(DeviceSignIn(stand_in.issuer(), "tv", client=stand_in.client()), show=lambda _: None)
    assert "s3cret" not in json.dumps([str(failure.value), failure.value.error_description])


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"extra": {"scope": "x"}}, ValueError), ({"scope": 7}, TypeError), ({"client": httpx.AsyncClient()}, TypeError)],
)
def test_a_setting_that_cannot_work_is_an_error_immediately(settings, error):
    with pytest.raises(error):
        DeviceSignIn(ISSUER, "tv", **settings)
