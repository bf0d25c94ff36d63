"""Tests that a program which signs nobody in imports none of it; and that httpx or httpx2 is enough for signing in."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def output_of(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:0] = {sys.path!r}\n{textwrap.dedent(program)}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nobody_imports_it_but_those_who_use_it_and_it_imports_no_event_loop_and_no_http_client():
    program = """
        import httpx_reauth, httpx_reauth.oauth
        print(sorted(set(sys.modules) & {"webbrowser", "httpx_reauth.signin"}))
        import httpx_reauth.signin
        print(sorted(set(sys.modules) & {"asyncio", "trio", "anyio", "httpx", "httpx2"}))
    """
    assert output_of(program) == "[]\n[]\n"


WITHOUT_HTTPX = """
    sys.modules["httpx"] = sys.modules["httpcore"] = None  # as if they were not installed
    import urllib.parse, urllib.request
    import anyio, httpx2
    import httpx_reauth.httpx2
    from httpx_reauth import RefreshError
    from httpx_reauth.oauth import Issuer, RefreshTokenGrant
    from httpx_reauth.signin import BrowserSignIn, DeviceSignIn

    def answer(request):
        if request.url.path == "/device":
            device = dict(device_code="d", user_code="u", verification_uri="https://id.example.com/go", interval=0)
            return httpx2.Response(200, json=device)
        return httpx2.Response(200, json=dict(access_token="a", refresh_token="r"))

    def visit(url):
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
        query = urllib.parse.urlencode(dict(code="c", state=asked["state"]))
        urllib.request.urlopen(asked["redirect_uri"] + "?" + query).read()

    where = "https://id.example.com/"
    issuer = Issuer.of(
        authorization_endpoint=where + "auth", token_endpoint=where + "token",
        device_authorization_endpoint=where + "device",
    )
    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    auth = httpx_reauth.httpx2.Reauth(RefreshTokenGrant(issuer, "cli", client=client))
    browser = BrowserSignIn(issuer, "cli", client=client, open=visit)
    nowhere = Issuer.of(device_authorization_endpoint="http://127.0.0.1:9/", token_endpoint="http://127.0.0.1:9/")
    try:
        DeviceSignIn(nowhere, "cli").run()  # by the package that is installed
    except RefreshError as error:
        print(type(error.__cause__).__module__.partition(".")[0], type(error.__cause__).__name__)
    for sign_in in (browser, DeviceSignIn(issuer, "cli", client=client)):
        auth.sign_in(sign_in.run(show=lambda prompt: None))
        print(auth.get_token().access_token)
        print(anyio.run(lambda: sign_in.arun(show=lambda prompt: None)).access_token)
"""


def test_people_sign_in_by_httpx2_where_httpx_is_not_installed():
    pytest.importorskip("httpx2")
    assert output_of(WITHOUT_HTTPX) == "httpx2 ConnectError\n" + "a\n" * 4
