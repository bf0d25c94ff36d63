"""Tests of signing in with headless Chromium, at oidc-provider (if there is Node.js) and at the test kit's server.

Scripts in the server's pages play the user.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from urllib.parse import urlsplit

import chromium
import node_servers
import pytest
from chromium import Chromium, Page

from httpx_reauth import ReauthError
from httpx_reauth.oauth import Issuer
from httpx_reauth.signin import BrowserPrompt, BrowserSignIn, DeviceSignIn, SignInDenied
from httpx_reauth.testing import AuthorizationServer


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium.running() as browser:
        yield browser


@pytest.fixture
def window(browser: Chromium) -> Iterator[Page]:
    window = browser.page()
    yield window
    window.close()


@pytest.fixture(scope="module")
def kit() -> Iterator[str]:
    """Serve the test kit's server. Its users consent immediately."""
    with AuthorizationServer(clients={"cli": None}).serve() as url:
        yield url


@pytest.fixture(scope="module")
def oidc_provider() -> Iterator[str]:
    with node_servers.running("oidc_provider.mjs", {"clients": [node_servers.NATIVE]}) as url:
        yield url


SUBMIT = """(() => {
    for (const field of document.querySelectorAll('input[name=login], input[name=password]')) field.value = 'ada';
    document.querySelector('button[type=submit]').click();
})()"""


def play(window: Page, until: str) -> None:
    """Fill in and send each page of oidc-provider, until the expression `until` is true."""
    for _ in range(8):
        window.wait_until(f"document.readyState === 'complete' && (({until}) || document.querySelector('button'))")
        if window.run(until):
            return
        window.run(f"window.before = true, setTimeout(() => {SUBMIT}, 0), 1")
        window.wait_until("!window.before && document.readyState === 'complete'")
    raise AssertionError(window.url)


IS_BACK = "location.pathname === '/callback'"


def sign_in_with(window: Page, issuer: str, **settings: object) -> Future[object]:
    """Start a sign-in in a thread, and open the server's page in `window`. Return the future of its token."""
    outcome: Future[object] = Future()
    urls: Future[str] = Future()

    def sign_in() -> None:
        one = BrowserSignIn(
            Issuer(issuer), "cli", **{"scope": "openid", "open": urls.set_result, "timeout": 60, **settings}
        )
        try:
            outcome.set_result(one.run(show=lambda _: None))
        except BaseException as error:  # noqa: BLE001 - the test checks it
            outcome.set_exception(error)

    threading.Thread(target=sign_in).start()
    window.open(urls.result(30))
    return outcome


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_person_signs_in_and_the_page_says_that_the_window_can_be_closed(window, oidc_provider, host):
    settings = {"scope": "openid offline_access read", "extra": {"prompt": "consent"}, "host": host}
    outcome = sign_in_with(window, oidc_provider, **settings)
    play(window, IS_BACK)
    token = outcome.result(60)
    assert token.refresh_token
    assert token.scope == "openid offline_access read"
    assert "You can close this window" in window.text
    assert urlsplit(window.url).hostname == host


def test_guarantee_11_the_page_its_address_and_the_history_have_no_secret_and_it_loads_nothing(window, oidc_provider):
    outcome = sign_in_with(window, oidc_provider)
    play(window, IS_BACK)
    token = outcome.result(60)
    assert urlsplit(window.url)._replace(netloc="").geturl() == "http:///callback"
    history = window.send("Page.getNavigationHistory")["entries"]
    assert "code=" not in history[-1]["url"]
    (callback,) = [url for url in window.requested() if "/callback?" in url]
    code = dict(pair.split("=") for pair in urlsplit(callback).query.split("&"))["code"]
    for secret in (code, token.access_token, "state="):
        assert secret not in window.html
    assert window.requested()[-1] == callback  # the page asks for no favicon, no font, no script
    assert window.run("performance.getEntriesByType('resource').length") == 0
    assert window.log() == []  # the page's content security policy forbids nothing that it contains


def test_a_person_who_says_no_sees_a_page_and_the_program_an_error(window, oidc_provider):
    outcome = sign_in_with(window, oidc_provider)
    window.wait_until("document.querySelector('a[href$=abort]')")
    window.run("window.before = true, setTimeout(() => document.querySelector('a[href$=abort]').click(), 0), 1")
    window.wait_until(f"!window.before && {IS_BACK}")
    with pytest.raises(SignInDenied) as failure:
        outcome.result(60)
    assert failure.value.error == "access_denied"
    assert "was not completed" in window.text
    assert "aborted" not in window.text


def test_another_page_of_the_browser_cannot_answer(window, browser, oidc_provider):
    """A foreign page in the same browser may try every port. Here it knows the right one."""
    outcome = sign_in_with(window, oidc_provider)
    window.wait_until("document.querySelector('button')")
    redirect_uri = window.requested()[0].split("redirect_uri=")[1].split("&")[0]
    redirect_uri = window.run(f"decodeURIComponent('{redirect_uri}')")
    hostile = browser.page()
    hostile.open(f"{oidc_provider}/.well-known/openid-configuration")  # any other origin will do
    tried = hostile.run(
        f"""(async () => {{
            const there = '{redirect_uri}', tried = [];
            for (const query of ['?code=forged&state=guessed', '?code=forged', '?error=access_denied']) {{
                tried.push(await fetch(there + query, {{mode: 'no-cors'}}).then((r) => r.type, (e) => 'refused'));
                const image = new Image();
                image.src = there + query;
                await new Promise((done) => {{ image.onerror = image.onload = done; }});
            }}
            try {{ await fetch(there); tried.push('read'); }} catch {{ tried.push('unreadable'); }}
            return tried;
        }})()"""
    )
    assert set(tried) <= {"opaque", "refused", "unreadable"}
    hostile.open(f"{redirect_uri}?code=forged&state=guessed")
    assert "not accepted" in hostile.text
    assert "forged" not in hostile.html
    hostile.close()
    assert not outcome.done()
    play(window, IS_BACK)
    assert outcome.result(60).access_token


def test_a_page_that_is_loaded_again_changes_nothing(window, kit):
    outcome = sign_in_with(window, kit)
    token = outcome.result(60)
    window.wait_until(IS_BACK)
    window.send("Page.reload")
    assert token.access_token


def test_a_browser_that_opens_more_connections_than_it_uses_is_answered(window, kit):
    """Chromium opens some connections in advance. A listener that reads from the first one only would wait for ever."""
    for _ in range(5):
        assert sign_in_with(window, kit).result(60).access_token


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 640)], ids=["wide", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_readable_on_a_phone_and_in_the_dark(window, kit, tmp_path, width, height, dark):
    window.looks(width=width, height=height, dark=dark)
    sign_in_with(window, kit).result(60)
    window.wait_until(IS_BACK)
    seen = window.run("""(() => {
        const style = getComputedStyle(document.body), main = document.querySelector('main').getBoundingClientRect();
        const numbers = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = (color) => numbers(color).map((c) => c / 255)
            .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const [text, back] = [light(style.color), light(style.backgroundColor)];
        return {
            contrast: (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05),
            isDark: back < text,
            size: parseFloat(style.fontSize),
            scrolls: document.documentElement.scrollWidth > innerWidth,
            left: main.left, right: innerWidth - main.right,
        };
    })()""")
    assert seen["contrast"] >= 7  # level AAA of WCAG 2.1
    assert seen["isDark"] is dark
    assert seen["size"] >= 16
    assert not seen["scrolls"]
    assert min(seen["left"], seen["right"]) >= 0
    picture = tmp_path / "page.png"
    window.screenshot(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_code_is_entered_on_another_device(window, oidc_provider):
    outcome: Future[object] = Future()
    prompts: Future[object] = Future()

    def sign_in() -> None:
        one = DeviceSignIn(Issuer(oidc_provider), "cli", scope="openid")
        try:
            outcome.set_result(one.run(show=prompts.set_result))
        except ReauthError as error:
            outcome.set_exception(error)

    threading.Thread(target=sign_in).start()
    prompt = prompts.result(30)
    window.open(prompt.verification_uri_complete)
    play(window, "document.body.innerText.includes('Sign-in Success')")
    assert outcome.result(60).access_token


def test_the_address_that_is_shown_is_copied_to_a_browser_on_another_machine(window, kit):
    """That browser cannot reach the port. So the user copies the address of its last page, and pastes it here."""
    shown: list[BrowserPrompt] = []

    def paste() -> str:
        url = shown[-1].url
        window.send("Network.setBlockedURLs", urls=["*/callback*"])
        window.send("Page.navigate", url=url)
        window.wait_until("location.href !== 'about:blank'")
        (last,) = [url for url in window.requested() if "/callback?" in url]
        return last

    one = BrowserSignIn(Issuer(kit), "cli", open=lambda _: False, paste=paste, timeout=60)
    assert one.run(show=shown.append).access_token
