"""Tests of callers' mistakes. Each is an error immediately, which says what was given and what to write instead."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import anyio
import pytest

from httpx_reauth import Reauth, Token, TokenStore
from httpx_reauth.oauth import ClientCredentialsGrant, Issuer, RefreshTokenGrant
from httpx_reauth.signin import DeviceSignIn
from httpx_reauth.storage import FileStorage, MemoryStorage
from httpx_reauth.testing import ManualClock


def refresh(token: Token) -> Token:
    return token


async def coroutine(token: Token) -> Token:
    return token


async def async_generator(token: Token):
    yield token


def generator(token: Token):
    yield token


class Callback:
    """A class, given where one of its objects is expected."""

    def __call__(self, token: Token) -> Token:
        return token


@pytest.mark.parametrize(
    ("given", "says", "write"),
    [
        (RefreshTokenGrant, "class RefreshTokenGrant", r"Reauth\(RefreshTokenGrant\("),
        (ClientCredentialsGrant, "class ClientCredentialsGrant", r"Reauth\(ClientCredentialsGrant\("),
        (Callback, "class Callback", r"Reauth\(Callback\("),
        (Token, "class Token", r"Reauth\(refresh, token="),
        (Token("secret"), "Token", r"Reauth\(refresh, token="),
        ("https://id.example.com/token?secret=1", "str", r"RefreshTokenGrant\("),
        ({"secret": 1}, "dict", r"Reauth\(refresh"),
        (None, "None", r"Reauth\(refresh"),
        (5, "int", r"Reauth\(refresh"),
        (async_generator, "generator", r"return"),
        (generator, "generator", r"return"),
    ],
)
def test_a_refresh_that_cannot_be_called_is_a_type_error(library, given, says, write):
    with pytest.raises(TypeError, match=rf"refresh .*{says}.*{write}") as failure:
        library.Reauth(given)
    assert "secret" not in str(failure.value)


def test_a_refresh_that_was_called_by_mistake_is_a_type_error(library):
    with pytest.raises(TypeError, match=r"refresh .*coroutine.*Reauth\(refresh\)"):
        library.Reauth(coroutine(Token()))


def test_the_class_given_to_the_client_is_a_type_error_at_the_first_request(library):
    package = library.package
    transport = package.MockTransport(lambda _: package.Response(200))
    with (
        package.Client(auth=library.Reauth, transport=transport) as client,
        pytest.raises(TypeError, match=r"Request.*auth=Reauth\(refresh\)"),
    ):
        client.get("https://api.example.com/me")


SECONDS, LIST = "a number of seconds", 'origins=["https://'

WRONG = [
    ("storage", FileStorage, "class FileStorage", "storage=FileStorage(...)"),
    ("storage", MemoryStorage, "class MemoryStorage", "storage=MemoryStorage(...)"),
    ("storage", "/home/secret/token.json", "str", "storage=FileStorage("),
    ("storage", Path("/home/secret/token.json"), type(Path()).__name__, "storage=FileStorage("),
    ("storage", TokenStore(), "TokenStore", "store="),
    ("storage", {"secret": 1}, "dict", "a Storage"),
    ("store", TokenStore, "class TokenStore", "store=TokenStore(...)"),
    ("store", MemoryStorage(), "MemoryStorage", "storage="),
    ("store", Token("secret"), "Token", "a TokenStore"),
    ("token", Token, "class Token", "token=Token("),
    ("token", "secret", "str", "token=Token("),
    ("token", {"access_token": "secret"}, "dict", "token=Token.from_response("),
    ("clock", ManualClock, "class ManualClock", "clock=ManualClock(...)"),
    ("clock", 5.0, "float", "a Clock"),
    ("clock", dt.datetime.now, "builtin_function", "monotonic()"),
    ("leeway", "60", "str", SECONDS),
    ("leeway", True, "bool", SECONDS),
    ("leeway", dt.timedelta(minutes=1), "timedelta", "total_seconds()"),
    ("leeway", None, "None", SECONDS),
    ("refresh_timeout", None, "None", SECONDS),
    ("refresh_timeout", float, "class float", SECONDS),
    ("buffer_request_body", "no", "str", "True or False"),
    ("buffer_request_body", None, "None", "True or False"),
    ("name", 42, "int", "a string"),
    ("name", b"user-42", "bytes", "a string"),
    ("origins", 5, "int", LIST),
    ("origins", b"https://api.example.com", "bytes", LIST),
    ("origins", [b"https://api.example.com"], "bytes", LIST),
    ("origins", [None], "None", LIST),
]


@pytest.mark.parametrize(("setting", "given", "kind", "instead"), WRONG)
def test_a_setting_of_another_type_is_a_type_error(library, setting, given, kind, instead):
    with pytest.raises(TypeError, match=rf"^{setting} ") as failure:
        library.Reauth(refresh, **{setting: given})
    message = str(failure.value)
    assert f"not {kind}" in message or f"not of {kind}" in message or f"not the {kind}" in message
    assert instead in message
    assert "secret" not in message


def test_what_python_says_about_a_call_names_the_class_that_the_user_knows(library):
    auth = library.Reauth(refresh)
    for call in (
        lambda: library.Reauth(refresh, origin="https://api.example.com"),
        library.Reauth,
        lambda: auth.get_token(reject=Token("a")),
        lambda: auth.sign_out("revoke"),
    ):
        with pytest.raises(TypeError, match=r"^Reauth\.\w+\(\) "):
            call()
    coroutine = auth.asign_in(Token("a"))
    coroutine.close()
    # Python's warning shows this name if nobody awaits the coroutine
    assert coroutine.__qualname__ == "Reauth.asign_in"


def test_the_client_s_own_url_is_no_origin_but_the_error_says_how_to_make_one(library):
    with pytest.raises(TypeError, match=r"origins .*URL.*str\(url\)"):
        library.Reauth(refresh, origins=[library.package.URL("https://api.example.com")])


@pytest.mark.parametrize("setting", ["leeway", "refresh_timeout"])
@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_number_of_seconds_that_makes_no_sense_is_a_value_error(library, setting, seconds):
    with pytest.raises(ValueError, match=setting):
        library.Reauth(refresh, **{setting: seconds})


def test_a_name_that_would_break_a_log_line_is_a_value_error(library):
    with pytest.raises(ValueError, match=r"^name "):
        library.Reauth(refresh, name="user\n42")


# --- sign_in, get_token ---

NO_TOKENS = [
    ({"access_token": "secret"}, r"dict.*Token\.from_response\("),
    ("secret", r'str.*Token\("'),
    (None, r"None.*sign_out\(\)"),
    (Token, r"class Token.*Token\("),
    (5, r"int.*Token\("),
]


@pytest.mark.parametrize(("given", "says"), NO_TOKENS)
def test_sign_in_takes_a_token_and_says_so_before_anything_changes(library, anyio_backend, given, says):
    auth = library.Reauth(refresh, token=Token("a"), storage=MemoryStorage())
    with pytest.raises(TypeError, match=rf"sign_in.*{says}") as failure:
        auth.sign_in(given)
    assert "secret" not in str(failure.value)

    async def main() -> None:
        with pytest.raises(TypeError, match=rf"sign_in.*{says}"):
            await auth.asign_in(given)

    anyio.run(main, backend=anyio_backend)
    assert auth.token == Token("a")


def test_sign_in_of_a_sign_in_that_has_not_run_says_to_run_it(library, anyio_backend):
    sign_in, auth = DeviceSignIn(Issuer("https://id.example.com"), "my-tv"), library.Reauth(refresh)
    with pytest.raises(TypeError, match=r"not DeviceSignIn\. Write sign_in\(your_sign_in\.run\(\)\)"):
        auth.sign_in(sign_in)

    async def main() -> None:
        with pytest.raises(TypeError, match=r"Write asign_in\(await your_sign_in\.arun\(\)\)"):
            await auth.asign_in(sign_in)

    anyio.run(main, backend=anyio_backend)


def test_sign_in_of_a_coroutine_says_to_await_it(library, recwarn):
    with pytest.raises(TypeError, match=r"not coroutine\. Write sign_in\(await \.\.\.\)"):
        library.Reauth(refresh).sign_in(coroutine(Token()))
    assert list(recwarn) == []


def test_sign_in_of_a_response_says_to_read_it(library):
    with pytest.raises(TypeError, match=r"sign_in.*Response.*Token\.from_response\("):
        library.Reauth(refresh).sign_in(library.package.Response(200, json={"access_token": "a"}))


@pytest.mark.parametrize("given", ["secret", {"access_token": "secret"}, Token, 5], ids=str)
def test_the_rejected_token_is_a_token(library, anyio_backend, given):
    auth = library.Reauth(refresh, token=Token("a"))
    with pytest.raises(TypeError, match=r"rejected.*Token") as failure:
        auth.get_token(rejected=given)
    assert "secret" not in str(failure.value)

    async def main() -> None:
        with pytest.raises(TypeError, match=r"rejected.*Token"):
            await auth.aget_token(rejected=given)

    anyio.run(main, backend=anyio_backend)


# --- subclasses ---


def test_a_method_of_a_subclass_that_would_never_be_called_is_a_type_error(library):
    class Signed(library.Reauth):
        def authorize(self, request: Any, token: Token) -> None: ...

    class ByBody(library.Reauth):
        def is_rejected(self, response: Any) -> bool: ...

    class Flow(library.Reauth):
        def auth_flow(self, request: Any): ...

    class Indirect(Signed): ...

    for cls, says in (
        (Signed, r"Signed\.authorize .*authorize=self\.authorize"),
        (ByBody, r"ByBody\.is_rejected .*is_rejected=self\.is_rejected"),
        (Indirect, r"Signed\.authorize "),
        (Flow, r"Flow\.auth_flow .*sync_auth_flow"),
    ):
        with pytest.raises(TypeError, match=says):
            cls(refresh)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("origins", ["https://api.example.com"]),
        ("storage", MemoryStorage()),
        ("read_body_of", {403}),
        ("buffer_request_body", True),
        ("leeway", 5.0),
        ("refresh_timeout", 5.0),
    ],
)
def test_a_setting_that_is_written_as_an_attribute_of_a_subclass_is_a_type_error(library, setting, value):
    cls = type("Ours", (library.Reauth,), {setting: value})
    with pytest.raises(TypeError, match=rf"Ours\.{setting} .*{setting}="):
        cls(refresh)
    needs = {"is_rejected": lambda response: False} if setting == "read_body_of" else {}
    cls(refresh, **{setting: value}, **needs)  # the same value as in the class is accepted


def test_a_subclass_may_hand_over_its_own_methods(talk, server):
    class Ours(talk.library.Reauth):
        def __init__(self, refresh: Any, **settings: Any) -> None:
            super().__init__(refresh, authorize=self.authorize, is_rejected=self.is_rejected, **settings)

        def authorize(self, request: Any, token: Token) -> None:
            request.headers["X-Token"] = token.access_token

        def is_rejected(self, response: Any) -> bool:
            return response.status_code == 401

    server.access_token_of = lambda request: request.header("x-token")
    auth = Ours(talk.site.refresh("function"), token=server.issue(), clock=talk.clock)
    assert talk(auth, lambda client: client.get("/me")).status_code == 200


def test_a_subclass_may_have_other_attributes(library):
    class Ours(library.Reauth):
        tenant = "eu"

        def sign_in(self, token: Token) -> None:
            super().sign_in(token)

    auth = Ours(refresh)
    auth.sign_in(Token("a"))
    assert (auth.tenant, auth.token) == ("eu", Token("a"))


@pytest.mark.parametrize(
    "wrong", [{"origins": ["api.example.com"]}, {"read_body_of": "403"}], ids=["origins", "bodies"]
)
def test_a_reauth_that_could_not_be_made_leaves_its_store_as_it_was(wrong):
    store = TokenStore()
    with pytest.raises((TypeError, ValueError)):
        Reauth(lambda token: token, token=Token("given"), store=store, storage=MemoryStorage(), name="no", **wrong)
    assert store.state.token is None
    Reauth(lambda token: token, store=store, storage=FileStorage("another.json"))  # it has no storage yet
