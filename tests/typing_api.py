"""Uses of the public API for the type checkers: mypy and pyright check this module, and nobody runs it.

A line with `type: ignore` is a mistake that the checkers must find. If mypy does not find it, mypy reports that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Literal

import httpx
import httpx2
from typing_extensions import assert_never, assert_type

import httpx_reauth
import httpx_reauth.httpx2
from httpx_reauth import (
    AuthState,
    Clock,
    InsecureOrigin,
    Reauth,
    ReauthError,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    RevokeFailed,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    StorageError,
    StorageUnavailable,
    Token,
    TokenStore,
    otel,
)
from httpx_reauth.identity import FileIdentity, GitHubActions
from httpx_reauth.oauth import (
    ClientCredentialsGrant,
    Grant,
    Issuer,
    JWTBearerGrant,
    MetadataRequest,
    PrivateKeyJWT,
    RefreshTokenGrant,
    SignedAssertion,
    TLSClientAuth,
    TokenExchangeGrant,
    TokenRequest,
)
from httpx_reauth.signin import (
    BrowserPrompt,
    BrowserSignIn,
    DevicePrompt,
    DeviceSignIn,
    SignInDenied,
    SignInExpired,
)
from httpx_reauth.testing import AuthorizationServer, ManualClock

Status = Literal["idle", "pending", "fulfilled", "rejected"]
Reason = Literal["missing", "expiring", "expired", "rejected"]


# The refresh: a coroutine function, a plain function, an object that is called, or a grant.


async def coroutine_refresh(token: Token) -> Token:
    async with httpx.AsyncClient() as client:
        response = await client.post("https://id.example.com/token", data={"refresh_token": token.refresh_token})
        return Token.from_response(response)


def plain_refresh(token: Token) -> Token:
    return token


def either_refresh(token: Token) -> Awaitable[Token] | Token:
    return coroutine_refresh(token) if token.refresh_token else token


def wrong_answer(token: Token) -> str:
    return token.access_token


def wrong_argument(token: str) -> Token:
    return Token(token)


class Refresh:
    async def __call__(self, token: Token) -> Token:
        return token


credentials = ClientCredentialsGrant("https://id.example.com/token", "id", "secret")
refresh_token = RefreshTokenGrant("https://id.example.com/token", "id")

assert_type(Reauth(coroutine_refresh), Reauth)
assert_type(Reauth(plain_refresh), Reauth)
assert_type(Reauth(either_refresh), Reauth)
assert_type(Reauth(Refresh()), Reauth)
assert_type(Reauth(credentials), Reauth)
assert_type(Reauth(refresh_token, token=Token(refresh_token="...")), Reauth)
Reauth(wrong_answer)  # type: ignore[arg-type]
Reauth(wrong_argument)  # type: ignore[arg-type]
Reauth()  # type: ignore[call-arg]
Reauth(plain_refresh, Token())  # type: ignore[call-arg]


# Every setting.


def authorize(request: httpx.Request, token: Token) -> None:
    request.headers["X-Api-Key"] = token.access_token


def is_rejected(response: httpx.Response) -> bool:
    return response.status_code in {401, 419}


clock: Clock = ManualClock()
store = TokenStore(Token("access"))
auth = Reauth(
    coroutine_refresh,
    token=None,
    store=store,
    origins=["https://api.example.com"],
    leeway=60.0,
    refresh_timeout=30,
    authorize=authorize,
    is_rejected=is_rejected,
    buffer_request_body=True,
    clock=clock,
)
Reauth(plain_refresh, origins=("https://a.example.com", "https://b.example.com"), clock=None, storage=None)
Reauth(plain_refresh, clock=object())  # type: ignore[arg-type]
Reauth(plain_refresh, token="access")  # type: ignore[arg-type]


# The clients of both libraries accept the auth object of their library.

plain_auth: httpx.Auth = auth
httpx.Client(auth=auth)
httpx.AsyncClient(auth=auth, base_url="https://api.example.com")

auth2 = httpx_reauth.httpx2.Reauth(coroutine_refresh, token=Token("access"))
plain_auth2: httpx2.Auth = auth2
httpx2.Client(auth=auth2)
httpx2.AsyncClient(auth=auth2)
httpx2.Client(auth=auth)  # type: ignore[arg-type]
httpx.Client(auth=auth2)  # type: ignore[arg-type]


def authorize2(request: httpx2.Request, token: Token) -> None:
    request.headers["X-Api-Key"] = token.access_token


httpx_reauth.httpx2.Reauth(plain_refresh, authorize=authorize2)
httpx_reauth.httpx2.Reauth(plain_refresh, authorize=authorize)  # type: ignore[arg-type]


class JudgesByBody(Reauth):
    requires_response_body = True


assert_type(JudgesByBody(plain_refresh, is_rejected=lambda response: b"expired" in response.content), JudgesByBody)


Reauth(plain_refresh, is_rejected=lambda response: response.status_code == 403, read_body_of={403})
Reauth(plain_refresh, is_rejected=is_rejected, read_body_of=[403, 419], name="user-42")
Reauth(plain_refresh, is_rejected=is_rejected, read_body_of=403)  # type: ignore[arg-type]
Reauth(plain_refresh, is_rejected=is_rejected, read_body_of="403")  # type: ignore[arg-type]


# Other methods of the auth object.


def use() -> None:
    assert_type(auth.store, TokenStore)
    assert_type(auth.token, Token | None)
    assert_type(auth.get_token(), Token)
    assert_type(auth.get_token(rejected=auth.store.state.token), Token)
    assert_type(auth.renew(), Token)
    assert_type(auth.sign_in(Token("access")), None)
    assert_type(auth.sign_out(), None)
    assert_type(auth.close(), None)
    with auth as entered:
        assert_type(entered, Reauth)
    auth.sign_in("access")  # type: ignore[arg-type]


async def use_async() -> None:
    assert_type(await auth.aget_token(), Token)
    assert_type(await auth.aget_token(rejected=Token("access")), Token)
    assert_type(await auth.arenew(), Token)
    assert_type(await auth.asign_in(Token("access")), None)
    assert_type(await auth.asign_out(), None)
    assert_type(await auth.aclose(), None)
    async with auth2 as entered:
        assert_type(entered, httpx_reauth.httpx2.Reauth)


# The token.

token = Token("access", refresh_token="refresh", expires_in=3600, expires_at=None, token_type="Bearer", scope="read")
assert_type(token.access_token, str)
assert_type(token.refresh_token, str | None)
assert_type(token.expires_in, float | None)
assert_type(token.expires_at, float | None)
assert_type(token.token_type, str)
assert_type(token.scope, str | None)
assert_type(token.extra, Mapping[str, Any])
assert_type(token.renewed(Token(), 0.0), Token)
assert_type(Token.from_response(httpx.Response(200)), Token)
assert_type(Token.from_response(httpx2.Response(200)), Token)
assert_type(Token.from_response({"access_token": "access"}), Token)
assert_type(Token(**dataclasses.asdict(token)), Token)
assert_type(dataclasses.replace(token, scope=None), Token)
token.access_token = "another"  # type: ignore[misc]
token.extra["id_token"] = "..."  # type: ignore[index]
Token("access", "refresh")  # type: ignore[call-arg]


# The store: its state, its actions, its listeners.

state = store.state
assert_type(state, AuthState)
assert_type(state.status, Status)
assert_type(state.token, Token | None)
assert_type(state.error, ReauthError | None)
state.token = None  # type: ignore[misc]


def listener(
    state: AuthState,
    action: RefreshPending | RefreshFulfilled | RefreshRejected | SaveFailed | SignedIn | SignedOut | RevokeFailed,
) -> None:
    match action:
        case RefreshPending():
            assert_type(action.reason, Reason)
        case RefreshFulfilled():
            assert_type(action.token, Token)
            assert_type(action.reason, Reason)
            assert_type(action.elapsed, float)
            assert_type(action.adopted, bool)
        case RefreshRejected():
            assert_type(action.error, ReauthError)
            assert_type(action.reason, Reason)
            assert_type(action.elapsed, float)
        case SaveFailed() | RevokeFailed():
            assert_type(action.error, ReauthError)
        case SignedIn():
            assert_type(action.token, Token)
        case SignedOut():
            assert_type(state.token, Token | None)
        case _:
            assert_never(action)


assert_type(store.subscribe(listener), Callable[[], None])
assert_type(store.dispatch(SignedIn(token)), bool)
assert_type(store.dispatch(SignedOut()), bool)
store.subscribe(plain_refresh)  # type: ignore[arg-type]
store.dispatch("signed out")  # type: ignore[arg-type]


# The errors: one base, and only the transient one is retried.

errors: list[type[ReauthError]] = [RefreshError, SignInRequired, InsecureOrigin, StorageError, StorageUnavailable]
transient: list[type[RefreshError]] = [RefreshError, StorageUnavailable]
stored: list[type[StorageError]] = [StorageError, StorageUnavailable]


class QuotaError(RefreshError):
    def __init__(self, quota: int) -> None:
        super().__init__("Used up.", retry_after=7.0, status_code=429, error="quota", extra={"quota": quota})


class ClientsError(RefreshError, httpx.TransportError):
    pass


RefreshError("busy", retry_after="5")  # type: ignore[arg-type]
Token.from_response(httpx.AsyncClient().post("https://id.example.com/token"))  # type: ignore[arg-type]


def handle(client: httpx.Client) -> float | None:
    try:
        client.get("/me")
    except SignInRequired as error:
        assert_type(error.error, str | None)
        assert_type(error.error_description, str | None)
        assert_type(error.error_uri, str | None)
        assert_type(error.extra, Mapping[str, Any])
    except RefreshError as error:
        assert_type(error.retry_after, float | None)
        assert_type(error.status_code, int | None)
        return error.retry_after
    return None


# The grants, and a grant that a user writes.

ClientCredentialsGrant(
    "https://id.example.com/token",
    "id",
    "secret",
    client_auth="client_secret_post",
    scope="read write",
    resource="https://api.example.com",
    extra={"audience": "https://api.example.com"},
    timeout=5.0,
    client=httpx.Client(),
    allow_http=False,
)
RefreshTokenGrant("https://id.example.com/token", "id", client_auth="none", resource=["https://api.example.com"])
ClientCredentialsGrant("https://id.example.com/token", "id", "secret", client_auth="basic")  # type: ignore[arg-type]
RefreshTokenGrant("https://id.example.com/token", "id", client=httpx.AsyncClient())  # type: ignore[arg-type]
credentials.timeout = 1.0  # type: ignore[misc]


class OwnGrant(Grant):
    def flow(self, token: Token, /) -> Generator[TokenRequest, httpx.Response, Token]:
        response = yield TokenRequest("https://id.example.com/token", {"refresh_token": token.refresh_token or ""})
        return Token.from_response(response)


class AnyOfBoth(Grant):
    repeatable = True

    def flow(self, token: Token, /) -> Generator[TokenRequest | MetadataRequest, Any, Token]:
        document = yield MetadataRequest("https://id.example.com/.well-known/oauth-authorization-server")
        response = yield TokenRequest(document.json()["token_endpoint"], {}, spends=None)
        return Token.from_response(response)


def client_secret() -> str:
    return "secret"


ClientCredentialsGrant(httpx.URL("https://id.example.com/token"), "id", client_secret, basic_encoding="plain")
ClientCredentialsGrant(httpx2.URL("https://id.example.com/token"), "id", "secret", client=httpx2.Client())
ClientCredentialsGrant(Issuer("https://id.example.com"), "id", "secret")
ClientCredentialsGrant(Issuer("https://id.example.com"), "id", client_auth=PrivateKeyJWT(Path("key.pem"), kid="1"))
RefreshTokenGrant("https://id.example.com/token", "id", client_auth=TLSClientAuth(), dead={"gone"})
PrivateKeyJWT(7)  # type: ignore[arg-type]
ClientCredentialsGrant("https://id.example.com/token", None, "secret")  # type: ignore[arg-type]
RefreshTokenGrant("https://id.example.com/token", "id", basic_encoding="utf-8")  # type: ignore[arg-type]
assert_type(credentials.repeatable, bool)

signed = SignedAssertion(Path("key.pem"), iss="robot", sub=None, aud=["https://id.example.com"], alg="PS256")
assert_type(signed(), str)
bearer = JWTBearerGrant("https://id.example.com/token", assertion=signed, client_id="id", client_auth=TLSClientAuth())
JWTBearerGrant(Issuer("https://id.example.com"), assertion=FileIdentity("token"))
JWTBearerGrant("https://id.example.com/token", assertion="a.b.c")  # type: ignore[arg-type]
JWTBearerGrant("https://id.example.com/token")  # type: ignore[call-arg]
exchange = TokenExchangeGrant(
    Issuer("https://id.example.com"),
    "id",
    "secret",
    subject_token=Reauth(bearer),
    subject_token_type="jwt",
    actor_token=lambda: "token",
    audience=["orders"],
    resource="https://api.example.com",
    requested_token_type="access_token",
)
TokenExchangeGrant("https://id.example.com/token", subject_token=httpx_reauth.httpx2.Reauth(bearer))
TokenExchangeGrant("https://id.example.com/token", subject_token=GitHubActions("https://api.example.com"))
TokenExchangeGrant("https://id.example.com/token", subject_token=Token("a"))  # type: ignore[arg-type]
assert_type(Reauth(exchange), Reauth)
TokenRequest("https://id.example.com/token", {}, per_attempt=lambda: {"assertion": signed()})

grant: Grant = credentials
assert_type(grant(Token()), Token)
assert_type(Reauth(OwnGrant()), Reauth)
assert_type(Reauth(grant), Reauth)


# Signing in.

sign_in = BrowserSignIn(
    Issuer("https://id.example.com"),
    "my-cli",
    client_secret=None,
    client_auth="none",
    client=httpx.Client(),
    allow_http=False,
    scope=["openid", "offline_access"],
    resource="https://api.example.com",
    extra={"prompt": "consent"},
    port=[8400, 8401],
    host="localhost",
    path="/callback",
    open=lambda url: None,
    paste=input,
    timeout=60,
)
device = DeviceSignIn(Issuer("https://id.example.com"), "tv", scope="openid", client=httpx2.Client())
BrowserSignIn("https://id.example.com", "my-cli")  # type: ignore[arg-type]
BrowserSignIn(Issuer("https://id.example.com"), "my-cli", "secret")  # type: ignore[call-arg]
DeviceSignIn(Issuer("https://id.example.com"), "tv", client=httpx.AsyncClient())  # type: ignore[arg-type]
sign_in.port = 0  # type: ignore[misc]


def show_code(prompt: DevicePrompt) -> None:
    assert_type(prompt.verification_uri_complete, str | None)
    assert_type(prompt.user_code, str)


async def show_address(prompt: BrowserPrompt) -> None:
    assert_type(prompt.url, str)
    assert_type(prompt.can_paste, bool)


async def sign_people_in() -> None:
    assert_type(sign_in.run(), Token)
    assert_type(device.run(show=print), Token)
    assert_type(device.run(show=show_code), Token)
    assert_type(await sign_in.arun(show=show_address), Token)
    assert_type(await device.arun(show=show_code), Token)


sign_in_errors: list[type[ReauthError]] = [SignInDenied, SignInExpired]


# The parts for a user's tests.

manual = ManualClock()
assert_type(manual.monotonic(), float)
assert_type(manual.time(), float)
assert_type(manual.advance(3600), None)


def serve() -> None:
    server = AuthorizationServer()
    assert_type(server.transport(httpx), httpx.MockTransport)
    assert_type(server.transport(httpx2), httpx2.MockTransport)
    with server.serve() as url:
        assert_type(url, str)


# OpenTelemetry.

undo = otel.instrument(auth.store, attributes={"server.address": "id.example.com"})
assert_type(undo, Callable[[], None])
otel.instrument(auth)  # type: ignore[arg-type]
