"""Tests of client ids and secrets: servers decode Basic differently, and a secret may come from several sources."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import httpx
import httpx2
import pytest

from httpx_reauth import InsecureOrigin, Reauth, RefreshError, Token
from httpx_reauth.oauth import ClientCredentialsGrant, ClientSecretJWT, RefreshTokenGrant, TLSClientAuth

URL = "https://id.example.com/token"
OLD = Token("old", refresh_token="r-1")
AWKWARD = "ab+c/dEf=="
HIDDEN = "a-secret-in-no-report"

each_grant = pytest.mark.parametrize("grant_type", [ClientCredentialsGrant, RefreshTokenGrant])


class Server:
    """A token endpoint that checks the client's secret, which it reads with or without decoding it."""

    def __init__(self, secret: str = AWKWARD, *, decodes: bool, refusal: httpx.Response | None = None) -> None:
        self.secret = secret
        self.decode: Callable[[str], str] = unquote if decodes else str
        self.refusal = refusal or httpx.Response(401, json={"error": "invalid_client"})
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        _, _, credentials = request.headers["authorization"].partition(" ")
        client_id, _, secret = base64.b64decode(credentials).decode().partition(":")
        if (self.decode(client_id), self.decode(secret)) != ("me", self.secret):
            return self.refusal
        return httpx.Response(200, json={"access_token": "fresh"})

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self))

    def grant(self, grant_type: Any = ClientCredentialsGrant, secret: Any = AWKWARD, **settings: Any) -> Any:
        return grant_type(URL, "me", secret, client=self.client(), **settings)

    def posts(self, grant: Any) -> tuple[str, int]:
        """What the grant gets, and with how many requests."""
        before = len(self.requests)
        try:
            outcome = grant(OLD).access_token
        except RefreshError as error:
            outcome = error.error
        return outcome, len(self.requests) - before


# --- the two spellings of Basic ---


@each_grant
def test_server_that_decodes_is_asked_once(grant_type):
    server = Server(decodes=True)
    grant = server.grant(grant_type)
    assert [server.posts(grant), server.posts(grant)] == [("fresh", 1)] * 2


@each_grant
def test_server_that_does_not_decode_is_asked_plainly_in_the_same_refresh_and_from_then_on(grant_type):
    server = Server(decodes=False)
    grant = server.grant(grant_type)
    assert [server.posts(grant), server.posts(grant), server.posts(grant)] == [("fresh", 2), ("fresh", 1), ("fresh", 1)]
    form, plain = server.requests[:2]
    assert form.content == plain.content  # the refresh token that the first did not spend, too


def test_what_has_worked_is_remembered_by_the_grant_for_every_auth_object():
    server = Server(decodes=False)
    grant = server.grant()
    for _ in range(3):
        assert Reauth(grant).get_token().access_token == "fresh"
    assert len(server.requests) == 2 + 1 + 1


def test_once_the_encoded_spelling_has_worked_a_refusal_is_no_reason_to_try_the_other():
    server = Server(decodes=True)
    grant = server.grant()
    assert server.posts(grant) == ("fresh", 1)
    server.secret = "replaced"
    assert server.posts(grant) == ("invalid_client", 1)


@pytest.mark.parametrize("decodes", [True, False])
def test_once_both_have_failed_only_the_encoded_one_is_sent(decodes):
    server = Server("another", decodes=decodes)
    grant = server.grant()
    assert [server.posts(grant), server.posts(grant)] == [("invalid_client", 2), ("invalid_client", 1)]
    expected = base64.b64encode(b"me:ab%2Bc%2FdEf%3D%3D").decode()
    assert server.requests[-1].headers["authorization"] == f"Basic {expected}"


def test_another_secret_gets_both_spellings_again():
    secrets = ["wrong+", "wrong+", AWKWARD, AWKWARD]
    server = Server(decodes=False)
    grant = server.grant(secret=lambda: secrets.pop(0))
    posts = [server.posts(grant) for _ in range(4)]
    assert posts == [("invalid_client", 2), ("invalid_client", 1), ("fresh", 2), ("fresh", 1)]


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(401, text="invalid_client"),
        httpx.Response(401, html="<p>invalid_client"),
        httpx.Response(401, json=["invalid_client"]),
        httpx.Response(400, json={"error": "invalid_scope"}),
        httpx.Response(400, json={"error": ["invalid_client"]}),
    ],
)
def test_another_answer_is_no_reason_to_try_the_other_spelling(refusal):
    server = Server(decodes=False, refusal=refusal)
    grant = server.grant()
    assert [server.posts(grant)[1], server.posts(grant)[1]] == [1, 1]


@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_invalid_client_counts_under_any_status(status):
    server = Server(decodes=False, refusal=httpx.Response(status, json={"error": "invalid_client"}))
    assert server.posts(server.grant()) == ("fresh", 2)


def test_where_both_spellings_are_the_same_there_is_nothing_to_try():
    server = Server(decodes=False)
    assert server.posts(server.grant(secret="simple-wrong.secret_~")) == ("invalid_client", 1)


def test_client_id_with_a_colon_has_no_plain_spelling():
    server = Server(decodes=False)
    assert server.posts(replace(server.grant(), client_id="https://me.example.com")) == ("invalid_client", 1)


@pytest.mark.parametrize(
    ("encoding", "decodes", "outcome"),
    [
        ("form", True, "fresh"),
        ("plain", False, "fresh"),
        ("form", False, "invalid_client"),
        ("plain", True, "fresh"),  # nothing in it is a percent sign
    ],
)
def test_basic_encoding_forces_one(encoding, decodes, outcome):
    server = Server(decodes=decodes)
    assert server.posts(server.grant(basic_encoding=encoding)) == (outcome, 1)


def test_other_encodings_are_refused():
    with pytest.raises(ValueError, match="basic_encoding must be one of auto, form, plain"):
        Server(decodes=True).grant(basic_encoding="latin-1")


def test_lost_answer_to_the_plain_spelling_has_an_unknown_outcome():
    server = Server(decodes=False)

    def handler(request: httpx.Request) -> httpx.Response:
        answer = server(request)
        if answer.status_code == 200:
            raise httpx.ReadError("reset")
        return answer

    grant = RefreshTokenGrant(URL, "me", AWKWARD, client=httpx.Client(transport=httpx.MockTransport(handler)))
    with pytest.raises(RefreshError, match="outcome is unknown"):
        grant(OLD)
    assert len(server.requests) == 2


def test_guarantee_11_neither_spelling_is_repeated_by_an_error():
    for spelling in (b"me:" + AWKWARD.encode(), b"me:ab%2Bc%2FdEf%3D%3D"):
        echo = base64.b64encode(spelling).decode()
        refusal = httpx.Response(401, json={"error": "invalid_client", "error_description": f"who is {echo}"})
        with pytest.raises(RefreshError) as failure:
            Server("another", decodes=True, refusal=refusal).grant()(OLD)
        assert echo not in repr(failure.value)


# --- the client id in the form, beside Basic ---


@each_grant
def test_the_client_id_may_be_in_the_form_as_well(grant_type):
    server = Server(decodes=True)
    grant = server.grant(grant_type, extra={"client_id": "me", "audience": "api"})
    assert server.posts(grant) == ("fresh", 1)
    assert b"client_id=me&" in server.requests[0].content + b"&"


@each_grant
def test_another_client_id_in_the_form_is_refused(grant_type):
    with pytest.raises(ValueError, match="extra must not hold client_id"):
        Server(decodes=True).grant(grant_type, extra={"client_id": "you"})


# --- a secret that is read when it is needed ---


def flaky(*outcomes: httpx.Response) -> httpx.Client:
    left = list(outcomes)
    return httpx.Client(transport=httpx.MockTransport(lambda _: left.pop(0)))


@each_grant
@pytest.mark.parametrize("client_auth", [None, "client_secret_basic", "client_secret_post"])
def test_the_function_is_asked_for_each_attempt(grant_type, client_auth):
    seen: list[bytes] = []
    outcomes = [httpx.Response(503), httpx.Response(503), httpx.Response(200, json={"access_token": "fresh"})]

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(base64.b64decode(request.headers.get("authorization", "Basic ")[6:]) + request.content)
        return outcomes.pop(0)

    secrets = ["first", "second", "third"]
    client = httpx.Client(transport=httpx.MockTransport(handler))
    grant = grant_type(URL, "me", lambda: secrets.pop(0), client_auth=client_auth, client=client)
    assert grant(OLD).access_token == "fresh"
    assert [next(name for name in (b"first", b"second", b"third") if name in one) for one in seen] == [
        b"first",
        b"second",
        b"third",
    ]


def test_nothing_is_asked_for_when_the_grant_is_made():
    def read() -> str:
        raise AssertionError

    ClientCredentialsGrant(URL, "me", read)


class VaultSealed(Exception):
    pass


def raises() -> str:
    raise VaultSealed("s.token")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (raises, "client_secret raised VaultSealed"),
        (lambda: None, "NoneType"),
        (lambda: "", "an empty string"),
        (lambda: b"secret", "bytes"),
        (lambda: "secret\n", r"without \.strip\(\)"),
    ],
)
def test_function_that_brings_no_secret_is_an_error_before_anything_is_sent(function, words):
    server = Server(decodes=True)
    with pytest.raises(RefreshError, match=words) as failure:
        server.grant(secret=function)(OLD)
    assert server.requests == []
    assert "s.token" not in str(failure.value)
    assert "secret\n" not in str(failure.value)


def test_what_the_function_raises_is_the_cause_unless_it_is_an_error_of_ours():
    with pytest.raises(RefreshError) as failure:
        Server(decodes=True).grant(secret=raises)(OLD)
    assert isinstance(failure.value.__cause__, VaultSealed)

    ours = RefreshError("the vault is sealed", retry_after=7)

    def raises_ours() -> str:
        raise ours

    with pytest.raises(RefreshError) as failure:
        Server(decodes=True).grant(secret=raises_ours)(OLD)
    assert failure.value is ours


async def coroutine_function() -> str:
    return "secret"


class AsyncCallable:
    async def __call__(self) -> str:
        return "secret"


@each_grant
@pytest.mark.parametrize("method", [ClientSecretJWT("s" * 32), TLSClientAuth()])
def test_a_method_of_client_authentication_in_the_place_of_the_secret_is_refused_with_its_place(grant_type, method):
    with pytest.raises(TypeError, match=rf"client_secret must be .*client_auth={type(method).__name__}\(\.\.\.\)"):
        grant_type(URL, "me", method)


@each_grant
@pytest.mark.parametrize(
    ("secret", "words"),
    [(coroutine_function, "plain function"), (AsyncCallable(), "plain function"), (7, "int"), (b"secret", "bytes")],
)
def test_secret_of_another_kind_is_refused(grant_type, secret, words):
    with pytest.raises(TypeError, match=f"client_secret must be .*{words}"):
        grant_type(URL, "me", secret)


def test_guarantee_11_secret_of_a_function_is_hidden_like_any_other():
    refusal = httpx.Response(401, json={"error": "invalid_client", "error_description": "wrong: from-the-vault"})
    grant = Server(decodes=True, refusal=refusal).grant(secret=lambda: "from-the-vault")
    with pytest.raises(RefreshError) as failure:
        grant(OLD)
    assert "from-the-vault" not in repr(failure.value)
    assert "from-the-vault" not in repr(grant)


# --- settings that cannot be meant ---


def test_empty_secret_of_a_service_is_an_environment_variable_that_was_not_set():
    for client_auth in (None, "client_secret_basic", "client_secret_post"):
        with pytest.raises(ValueError, match=r"client_secret.*environment variable"):
            ClientCredentialsGrant(URL, "me", "", client_auth=client_auth)


@each_grant
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scope": 1.23}, "scope must be a string or a list of strings, not float"),
        ({"scope": ["read", None]}, "scope .*NoneType.*environment variable"),
        ({"scope": {"read": True}}, "scope .*not dict"),
        ({"scope": b"read"}, "scope .*not bytes"),
        ({"resource": 7}, "resource .*not int"),
        ({"resource": ["https://a.example.com", 7]}, "resource .*int"),
        ({"extra": {"audience": None}}, "extra.*audience"),
        ({"extra": {"max_age": 3600}}, "max_age.*int"),
        ({"extra": ["audience"]}, "extra must be a mapping"),
        ({"client_id": 7}, "client_id .*int"),
        ({"timeout": "5"}, "timeout .*str"),
        ({"timeout": None}, "timeout .*NoneType"),
        ({"timeout": True}, "timeout .*bool"),
        ({"allow_http": "false"}, "allow_http must be True or False, not str"),
    ],
)
def test_setting_of_another_type_is_refused_with_its_name(grant_type, settings, words):
    with pytest.raises(TypeError, match=words):
        grant_type(**{"token_url": URL, "client_id": "me", "client_secret": "secret", **settings})


@each_grant
@pytest.mark.parametrize("settings", [{"scope": 1.23}, {"timeout": 0}, {"token_url": "http://id.example.com/token"}])
def test_guarantee_11_refused_setting_leaves_the_secret_in_no_local_of_the_traceback(grant_type, settings):
    with pytest.raises((TypeError, ValueError, InsecureOrigin)) as refused:
        grant_type(**{"token_url": URL, "client_id": "me", "client_secret": HIDDEN, **settings})
    report = "".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format())
    assert HIDDEN not in report


@each_grant
def test_extra_field_with_several_values_is_repeated(grant_type):
    grant = grant_type(URL, "me", "secret", extra={"audience": ["a", "b"]})
    assert next(grant.flow(OLD)).body.count(b"audience=") == 2


@each_grant
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_token_url_may_be_a_url_object(grant_type, package):
    grant = grant_type(package.URL(URL), "me", "secret")
    assert next(grant.flow(OLD)).url == URL
    assert grant == grant_type(URL, "me", "secret")
    with pytest.raises(ValueError, match="user name") as refused:
        grant_type(package.URL("https://me:geheim@id.example.com/token"), "me", "secret")
    assert "geheim" not in str(refused.value)


@each_grant
def test_subclass_may_have_attributes_of_its_own(grant_type):
    class Counting(grant_type):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.calls = 0

        def flow(self, token: Token, /):
            self.calls += 1
            return super().flow(token)

    @dataclass(frozen=True)
    class Tenant(grant_type):
        tenant: str = "acme"

    counting = Counting(URL, "me", "secret")
    next(counting.flow(OLD))
    assert counting.calls == 1
    with pytest.raises(AttributeError):
        counting.timeout = 1.0
    assert Tenant(URL, "me", "secret", tenant="b").tenant == "b"


@each_grant
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_grant_given_as_auth_says_what_to_write(grant_type, package):
    grant = grant_type(URL, "me", "secret")
    client = package.Client(auth=grant, transport=package.MockTransport(lambda _: package.Response(200)))
    with pytest.raises(TypeError, match=rf"auth=Reauth\({grant_type.__name__}\("):
        client.get("https://api.example.com/me")
    with pytest.raises(TypeError, match="last token"):
        grant("old")


def test_scope_that_the_answer_leaves_out_is_the_one_that_was_asked_for():
    def answering(**fields: str) -> httpx.Client:
        answer = httpx.Response(200, json={"access_token": "fresh", **fields})
        return httpx.Client(transport=httpx.MockTransport(lambda _: answer))

    grant = ClientCredentialsGrant(URL, "me", "secret", scope=["read", "write"])
    assert replace(grant, client=answering())(OLD).scope == "read write"
    assert replace(grant, client=answering(scope="read"))(OLD).scope == "read"
    assert replace(grant, scope=None, client=answering())(OLD).scope is None


def test_whether_asking_twice_does_harm_is_an_attribute():
    assert ClientCredentialsGrant(URL, "me", "secret").repeatable
    assert not RefreshTokenGrant(URL, "me").repeatable
