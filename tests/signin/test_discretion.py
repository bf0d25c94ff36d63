"""Tests that no code, verifier or token is in a page, a log line, an error, the process list or a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

import httpx
import pytest
from signing_in import CODE, URL, run_by

from httpx_reauth import ReauthError, RefreshError
from httpx_reauth.signin import BrowserSignIn, DeviceSignIn

TESTS = str(Path(__file__).parent)


def never(_: object) -> None:
    """Show nothing."""


def everything_of(error: BaseException) -> str:
    """Return what a crash reporter sends of `error` and its causes.

    That is the messages, and the local variables of all frames. The frames of the tests are left out.
    """
    told = ""
    chain: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while chain:
        one = chain.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        told += f"{one!r} {one.args} {one.__dict__}"
        frames = traceback.StackSummary.extract(traceback.walk_tb(one.__traceback__), capture_locals=True)
        told += "".join(f"{frame.filename} {frame.locals}" for frame in frames if TESTS not in frame.filename)
        chain += [one.__cause__, one.__context__]
    return told


def secrets_of(stand_in) -> list[str]:
    sent = [
        form.get(name, "") for form in stand_in.forms("/token") for name in ("code", "code_verifier", "device_code")
    ]
    return [secret for secret in [*dict.fromkeys(sent), "s3cret"] if secret]


TOKEN = {"access_token": "s3cret-access", "refresh_token": "s3cret-refresh"}
BAD_ANSWERS: dict[str, Any] = {  # ECHO is replaced by the request's secrets
    "invalid_grant": (400, {"error": "invalid_grant", "error_description": "ECHO is unknown"}),
    "server error": (500, {"error": "server_error", "error_description": "ECHO"}),
    "html": (200, "<p>ECHO s3cret-access</p>"),
    "no token": (200, {"refresh_token": "s3cret-refresh"}),
    "another type": (200, {**TOKEN, "token_type": "dpop"}),
    "cannot be sent": (200, {**TOKEN, "access_token": "s3cret\n"}),
    "timeout": httpx.ReadTimeout("slow"),
    "connection": httpx.ConnectError("refused"),
    "protocol": httpx.RemoteProtocolError("illegal status line: bytearray(b's3cret-access')"),
}


def echoing(answer: Any, secret: str) -> Any:
    return answer if isinstance(answer, Exception) else json.loads(json.dumps(answer).replace("ECHO", secret))


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_guarantee_11_no_failure_of_a_code_shows_a_secret(stand_in, run, answer):
    stand_in.token = [echoing(answer, CODE)]
    one = BrowserSignIn(
        stand_in.issuer(), "cli", client_secret="s3cret-client", client=stand_in.client(), open=stand_in.visit
    )
    with pytest.raises(ReauthError) as failure:
        run(one, show=never)
    told = everything_of(failure.value)
    assert len(secrets_of(stand_in)) == 3
    for secret in secrets_of(stand_in):
        assert secret not in told


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_guarantee_11_no_failure_of_a_device_code_shows_a_secret(stand_in, run, answer):
    status, device = stand_in.device[0]
    stand_in.device = [(status, {**device, "interval": 0, "expires_in": 1})]
    stand_in.token = [
        (400, {"error": "authorization_pending"}),
        echoing(answer, "s3cret-device"),
        (400, {"error": "access_denied"}),
    ]
    one = DeviceSignIn(stand_in.issuer(), "cli", client_secret="s3cret-client", client=stand_in.client())
    with pytest.raises(ReauthError) as failure:
        run(one, show=never)
    told = everything_of(failure.value)
    for secret in secrets_of(stand_in):
        assert secret not in told


@pytest.mark.parametrize(
    "fields",
    [{"iss": "https://other.example.com"}, {"error": "access_denied"}, {"code": None}],
    ids=["wrong iss", "denied", "no code"],
)
def test_guarantee_11_no_failure_of_the_answer_shows_a_secret(stand_in, run, fields):
    pages: list[httpx.Response] = []

    def open_(url: str) -> None:
        pages.append(stand_in.visit(url, **fields))

    with pytest.raises(ReauthError) as failure:
        run(BrowserSignIn(stand_in.issuer(), "cli", client=stand_in.client(), open=open_), show=never)
    told = everything_of(failure.value) + pages[0].text + repr(pages[0].headers)
    for secret in (CODE, stand_in.authorized["state"]):
        assert secret not in told


@pytest.mark.parametrize("where", ["open", "show", "post"])
def test_guarantee_11_what_else_is_raised_shows_none_in_the_frames_of_the_package(stand_in, run, where):
    """The error comes from the caller's function, or is Ctrl-C in the last request.

    Only a sync sign-in posts that itself.
    """

    def mistaken(*_: object) -> None:
        raise LookupError("mistake")

    def interrupted() -> None:
        raise KeyboardInterrupt

    settings = {"open": stand_in.visit}
    show: Any = never
    if where == "post":
        stand_in.token = [interrupted]
        run = run_by("run")
    elif where == "show":
        settings["open"], show = never, mistaken
    else:
        settings["open"] = mistaken
    one = BrowserSignIn(stand_in.issuer(), "cli", client_secret="s3cret-client", client=stand_in.client(), **settings)
    with pytest.raises((LookupError, KeyboardInterrupt)) as failure:
        run(one, show=show)
    told = everything_of(failure.value)
    for secret in secrets_of(stand_in):
        assert secret not in told


class Mistake(BaseException):
    """An exception that the library does not expect."""


def fails(_: object) -> None:
    raise Mistake


@pytest.mark.parametrize("why", ["a hook", "a closed client"])
@pytest.mark.parametrize("kind", [BrowserSignIn, DeviceSignIn])
def test_guarantee_11_what_the_client_raises_shows_none_and_says_where_it_comes_from(stand_in, run, kind, why):
    client = stand_in.client()

    def break_it(*_: object) -> None:
        if why == "a hook":
            client.event_hooks = {"request": [fails]}
        else:
            client.close()

    def open_(url: str) -> None:
        break_it()
        stand_in.visit(url)

    stand_in.device[0][1]["interval"] = 0
    one, show = DeviceSignIn(stand_in.issuer(), "cli", client=client, client_secret="s3cret-client"), break_it
    if kind is BrowserSignIn:
        one = BrowserSignIn(stand_in.issuer(), "cli", client=client, client_secret="s3cret-client", open=open_)
        show = never
    with pytest.raises((Mistake, RuntimeError)) as failure:
        run(one, show=show)
    told = everything_of(failure.value)
    for secret in ("s3cret", "code_verifier="):
        assert secret not in told
    assert kind.__name__ in failure.value.__notes__[0]


@pytest.mark.parametrize("kind", [BrowserSignIn, DeviceSignIn])
def test_guarantee_11_function_of_the_caller_that_fails_is_named_without_its_words(stand_in, run, kind):
    def vault() -> str:
        raise LookupError("s3cret-of-the-vault is unknown")

    settings: dict[str, Any] = {"open": stand_in.visit} if kind is BrowserSignIn else {}
    with pytest.raises(RefreshError, match=r"client_secret raised LookupError at .*begin a new sign-in") as failure:
        run(kind(stand_in.issuer(), "cli", client_secret=vault, client=stand_in.client(), **settings), show=never)
    assert "s3cret" not in str(failure.value)
    assert "back-off" not in str(failure.value)
    assert isinstance(failure.value.__cause__, LookupError)


@pytest.mark.parametrize(
    "settings",
    [
        {"client_secret": "s3cret\n"},
        {"client_secret": b"s3cret"},
        {"client_secret": "s3cret", "scope": 7},
        {"extra": {"api_key": "s3cret", "client_id": "other"}},
    ],
    ids=["a line break", "bytes", "another setting", "a further field"],
)
@pytest.mark.parametrize("kind", [BrowserSignIn, DeviceSignIn])
def test_guarantee_11_refused_setting_leaves_the_secret_in_no_local_of_the_traceback(stand_in, kind, settings):
    with pytest.raises((ValueError, TypeError)) as refused:
        kind(stand_in.issuer(), "cli", **settings)
    assert "s3cret" not in everything_of(refused.value)


def test_guarantee_11_no_log_line_has_a_secret(stand_in, run, caplog):
    """The test checks all loggers, also those of the HTTP client and of the event loop."""
    caplog.set_level(0)
    run(BrowserSignIn(stand_in.issuer(), "cli", scope="read", client=stand_in.client(), open=stand_in.visit))
    (form,) = stand_in.forms("/token")
    for record in caplog.records:
        if record.name.startswith("httpx_reauth") or "id.example.com" in record.getMessage():
            for secret in (CODE, form["code_verifier"], "s3cret"):
                assert secret not in record.getMessage()


@pytest.mark.skipif(os.name == "nt", reason="a browser that is a script")
def test_guarantee_11_the_process_list_has_no_secret(tmp_path):
    """The standard library starts the browser, by default.

    Its arguments are all that other users of the machine see.
    """
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent(f"""
            import json, os, sys, urllib.parse, urllib.request
            with open({str(tmp_path / "seen")!r}, "w") as file:
                json.dump(sys.argv[1:], file)
            asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(sys.argv[1]).query))
            answer = urllib.parse.urlencode({{"code": "{CODE}", "state": asked["state"]}})
            urllib.request.urlopen(asked["redirect_uri"] + "?" + answer).read()
        """)
    )
    browser.chmod(0o700)
    program = textwrap.dedent(f"""
        import os, sys
        sys.path[:0] = {sys.path!r}
        import httpx
        from httpx_reauth.oauth import Issuer
        from httpx_reauth.signin import BrowserSignIn
        forms = []
        def answer(request):
            forms.append(request.content.decode())
            return httpx.Response(200, json={TOKEN!r})
        client = httpx.Client(transport=httpx.MockTransport(answer))
        issuer = Issuer.of(authorization_endpoint="{URL}/authorize", token_endpoint="{URL}/token")
        BrowserSignIn(issuer, "cli", client=client).run()
        print(forms[0])
    """)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "BROWSER": f"{browser} %s"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    form = dict(httpx.QueryParams(done.stdout.strip()))
    assert form["code"] == CODE
    seen = (tmp_path / "seen").read_text()
    assert "code_challenge=" in seen
    for secret in (CODE, form["code_verifier"]):
        assert secret not in seen + done.stderr
