"""Tests that no `repr`, log line, exception, traceback or pickle contains a secret (guarantee 11)."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import multiprocessing.reduction
import pickle
import traceback

import httpx
import pytest

from httpx_reauth import (
    AuthState,
    InsecureOrigin,
    ReauthError,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
    SignInRequired,
    StorageError,
    Token,
    TokenStore,
)
from httpx_reauth.oauth import ClientCredentialsGrant, RefreshTokenGrant
from httpx_reauth.testing import AuthorizationServer, faults

ACCESS, REFRESH, CLIENT_SECRET, ID_TOKEN = "s3cret-access", "s3cret-refresh", "s3cret-client", "s3cret-id"
SECRET = "s3cret"

TOKEN = Token(ACCESS, refresh_token=REFRESH, expires_in=60, scope="read", extra={"id_token": ID_TOKEN})


def get(client):
    return client.get("/me")


class Recorder:
    """Records everything that any logger writes at DEBUG, and every action of a store, and checks it for secrets."""

    def __init__(self) -> None:
        self.lines = io.StringIO()
        self.secrets: set[str] = set()

    def listen(self, auth) -> None:
        self.remember(auth.store.state.token)
        auth.store.subscribe(self._record)

    def remember(self, token) -> None:
        for secret in () if token is None else (token.access_token, token.refresh_token):
            if secret:
                self.secrets.add(secret)

    def _record(self, state, action) -> None:
        self.remember(state.token)
        for value in (state, action):
            print(repr(value), str(value), f"{value}", f"{value!r:>10}", file=self.lines)

    def note(self, *values) -> None:
        for value in values:
            print(repr(value), str(value), f"{value}", "%s %r" % (value, value), file=self.lines)  # noqa: UP031
            if isinstance(value, BaseException):
                print(*traceback.format_exception(value), file=self.lines)
                print(value.args, vars(value).values(), file=self.lines)

    def assert_nothing_leaked(self) -> None:
        recorded = self.lines.getvalue()
        assert self.secrets
        assert recorded
        for secret in (*self.secrets, SECRET):
            assert secret not in recorded


@pytest.fixture
def recorder():
    recorder = Recorder()
    handler = logging.StreamHandler(recorder.lines)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield recorder
    root.removeHandler(handler)
    root.setLevel(level)


# --- values ---


def values():
    store = TokenStore(TOKEN)
    error = RefreshError("It failed.")
    return [
        TOKEN,
        Token(ACCESS),
        Token(refresh_token=REFRESH),
        AuthState("fulfilled", TOKEN),
        AuthState("rejected", TOKEN, error),
        store,
        store.state,
        RefreshPending("expired", expected=store.state),
        RefreshFulfilled(TOKEN, "expired", 0.5),
        RefreshRejected(error, "rejected", 0.5),
        SaveFailed(StorageError("disk full"), token=TOKEN),
        SignedIn(TOKEN),
        SignedOut(),
        ClientCredentialsGrant("https://as.test/token", "app", CLIENT_SECRET, extra={"audience": "api"}),
        RefreshTokenGrant("https://as.test/token", "app", CLIENT_SECRET),
    ]


VALUES = pytest.mark.parametrize("value", values(), ids=lambda value: type(value).__name__)
SPELLINGS = [repr, str, "{}".format, "{!r}".format, ascii, lambda value: f"{[value]} { ({'a': value}) }"]


@VALUES
@pytest.mark.parametrize("spell", SPELLINGS, ids=["repr", "str", "format", "format_r", "ascii", "nested"])
def test_guarantee_11_no_value_shows_a_secret(value, spell):
    assert SECRET not in spell(value)
    assert type(value).__name__ in spell(value)


@pytest.mark.parametrize("spell", SPELLINGS, ids=["repr", "str", "format", "format_r", "ascii", "nested"])
def test_guarantee_11_no_auth_object_shows_a_secret(library, spell):
    auth = library.Reauth(RefreshTokenGrant("https://as.test/token", "app", CLIENT_SECRET), token=TOKEN)
    assert SECRET not in spell(auth)
    assert "Reauth(" in spell(auth)


@VALUES
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_guarantee_11_no_value_can_be_pickled(value, protocol):
    with pytest.raises(TypeError, match="refuses to be pickled") as failure:
        pickle.dumps(value, protocol)
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_guarantee_11_no_auth_object_can_be_pickled(library, protocol):
    auth = library.Reauth(lambda token: token, token=TOKEN)
    with pytest.raises(TypeError, match="refuses to be pickled"):
        pickle.dumps(auth, protocol)
    with pytest.raises(TypeError, match="refuses to be pickled"):
        pickle.dumps({"auth": [auth]}, protocol)
    with pytest.raises(TypeError, match="refuses to be pickled"):
        multiprocessing.reduction.ForkingPickler.dumps(auth)


@VALUES
def test_copying_a_value_returns_the_same_object(value):
    assert copy.copy(value) is value
    assert copy.deepcopy(value) is value
    assert copy.deepcopy([value])[0] is value


def test_copying_an_auth_object_returns_the_same_object(library):
    auth = library.Reauth(lambda token: token, token=TOKEN)
    assert copy.copy(auth) is auth
    assert copy.deepcopy({"auth": auth})["auth"] is auth


def test_token_reads_back_from_its_own_fields():
    fields = dataclasses.asdict(TOKEN)
    assert Token(**fields) == TOKEN
    assert fields["access_token"] == ACCESS  # `asdict` shows it on purpose; nothing else does
    assert json.loads(json.dumps(fields)) == fields
    assert Token(**json.loads(json.dumps(fields))) == TOKEN


def test_token_has_no_dict_to_be_dumped_by_accident():
    with pytest.raises(TypeError):
        vars(TOKEN)
    with pytest.raises(TypeError):
        json.dumps(TOKEN)


def test_token_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TOKEN.access_token = "other"
    with pytest.raises(TypeError):
        TOKEN.extra["id_token"] = "other"


def test_replaced_field_of_a_token_leaves_the_others():
    assert dataclasses.replace(TOKEN, scope="write").refresh_token == REFRESH


# --- errors ---


def failures(talk, server, auth, recorder):
    """Return the exceptions of two requests and a `get_token`, one after the other."""
    errors = []
    for ask in (lambda: talk(auth, get), lambda: talk(auth, get), lambda: talk.token(auth)):
        with pytest.raises(ReauthError) as failure:
            ask()
        errors.append(failure.value)
    recorder.note(*errors, auth, auth.store, auth.store.state)
    return errors


FAULTS = {
    "unavailable": faults.unavailable(500),
    "too many": faults.too_many_requests(500),
    "dropped": faults.dropped(),
    "refused": faults.refused_connection(),
    "cut off": faults.cut_off(b'{"access_token": "s3cret-access", "refr'),
    "no json": faults.reply(200, "s3cret-access"),
    "no object": faults.reply(200, '["s3cret-access"]'),
    "no token": faults.reply(200, {"refresh_token": "s3cret-refresh"}),
    "wrong type": faults.reply(200, {"access_token": "s3cret-access", "token_type": "mac"}),
    "unusable": faults.reply(200, {"access_token": "s3cret-access\n"}),
    "number": faults.reply(200, {"access_token": 5, "refresh_token": "s3cret-refresh"}),
    "nested": faults.reply(200, {"access_token": {"value": "s3cret-access"}}),
    "invalid_grant": faults.reply(400, {"error": "invalid_grant"}),
    "invalid_client": faults.reply(401, {"error": "invalid_client"}),
    "redirect": faults.redirect("https://elsewhere.test/token?token=s3cret-access"),
}


@pytest.mark.parametrize("kind", ["coroutine", "grant"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_guarantee_11_no_failure_shows_a_secret(talk, server, recorder, kind, fault):
    auth = talk.auth(server.issue(access_token=False), talk.site.refresh(kind))
    recorder.listen(auth)
    server.token_endpoint.fail_always(fault)
    for error in failures(talk, server, auth, recorder):
        assert isinstance(error, (RefreshError, SignInRequired))
    recorder.assert_nothing_leaked()


# the library makes these messages in one place, for all modes
IN_ONE_MODE = pytest.mark.parametrize("mode", ["sync"])

ECHOES = {
    "whole": lambda secret: f"Unknown token {secret}!",
    "twice": lambda secret: f"{secret} {secret}",
    "alone": lambda secret: secret,
    "at the end of a long text": lambda secret: "x" * 290 + secret,
    "after a long text": lambda secret: "x" * 1_000 + secret,
    "behind a line break": lambda secret: f"Unknown token\n{secret}\r\n",
}


def whole_and_parts(secret: str) -> list[str]:
    """Return the secret, and its first half, which would be left if a message were cut."""
    return [secret, secret[: len(secret) // 2]]


@IN_ONE_MODE
@pytest.mark.parametrize("field", ["error", "error_description", "error_uri"])
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_guarantee_11_server_that_echoes_the_refresh_token_does_not_get_it_into_an_error(
    talk, server, recorder, field, echo
):
    auth = talk.auth(Token(refresh_token="0123456789-the-refresh-token-9876543210"))
    secret = auth.store.state.token.refresh_token
    server.token_endpoint.fail_always(faults.reply(400, {"error": "invalid_request", field: echo(secret)}))
    failures(talk, server, auth, recorder)
    recorded = recorder.lines.getvalue()
    for part in whole_and_parts(secret):
        assert part not in recorded


@IN_ONE_MODE
@pytest.mark.parametrize("length", [200, 300, 400, 2_000, 6_000])
def test_guarantee_11_no_part_of_a_long_refresh_token_that_is_echoed_is_shown_either(talk, server, recorder, length):
    secret = "".join(chr(ord("a") + (7 * number + number // 26) % 26) for number in range(length))
    auth = talk.auth(Token(refresh_token=secret))
    answer = {"error": "invalid_grant", "error_description": f"The token {secret} is not good."}
    server.token_endpoint.fail_always(faults.reply(400, answer))
    failures(talk, server, auth, recorder)
    recorded = recorder.lines.getvalue()
    assert "The token" in recorded
    assert secret[:40] not in recorded


@IN_ONE_MODE
def test_guarantee_11_echo_in_another_spelling_is_hidden_too(talk, server, recorder):
    secret = "abc/def+ghi=jkl mno%pqr"
    auth = talk.auth(Token(refresh_token=secret))
    answer = {"error": "invalid_grant", "error_description": "token=abc%2Fdef%2Bghi%3Djkl+mno%25pqr", "more": secret}
    server.token_endpoint.fail_always(faults.reply(400, answer))
    failures(talk, server, auth, recorder)
    recorded = recorder.lines.getvalue()
    assert secret not in recorded
    assert "abc%2Fdef" not in recorded


@pytest.mark.parametrize("which", ["refresh_token", "access_token"])
def test_guarantee_11_token_that_the_refresh_has_found_is_hidden_as_well(talk, server, recorder, which):
    """The refresh returns an expired row of a table, and is called again with it.

    The row's secrets must be hidden as well.
    """
    found = Token("found-access-0123456789", refresh_token="found-refresh-0123456789", expires_at=1.0)

    def refresh(token):
        if token.access_token != found.access_token:
            return found
        raise RefreshError(f"No: {getattr(token, which)}", error_description=f"Bad {getattr(token, which)}")

    auth = talk.auth(server.issue(access_token=False), refresh)
    failures(talk, server, auth, recorder)
    assert getattr(found, which) not in recorder.lines.getvalue()


@IN_ONE_MODE
@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("make", [ClientCredentialsGrant, RefreshTokenGrant])
def test_guarantee_11_server_that_echoes_the_client_secret_does_not_get_it_into_an_error(
    talk, server, recorder, make, client_auth
):
    grant = make(
        f"{talk.site.url}/token",
        "app",
        "client-0123456789-secret",
        client_auth=client_auth,
        client=httpx.Client(transport=server.transport(httpx)),
    )
    auth = talk.auth(server.issue(access_token=False), grant)
    answer = {"error": "invalid_client", "error_description": "Wrong secret: client-0123456789-secret"}
    server.token_endpoint.fail_always(faults.reply(401, answer))
    failures(talk, server, auth, recorder)
    assert "client-0123456789-secret" not in recorder.lines.getvalue()


@pytest.mark.parametrize("words", ["{0.refresh_token}", "{0.access_token} and {0.refresh_token}"])
def test_guarantee_11_what_a_refresh_itself_raises_is_not_repeated_by_us(talk, server, recorder, words):
    """The exception's own message is in `__cause__`, for which the user is responsible.

    Our message and the log name only its type.
    """

    def refresh(token):
        raise LookupError(words.format(token))

    auth = talk.auth(server.issue(), refresh)
    recorder.listen(auth)
    server.revoke_access_tokens()
    for _ in range(2):
        with pytest.raises(RefreshError) as failure:
            talk(auth, get)
        recorder.note(str(failure.value), repr(failure.value), auth)
    assert type(failure.value.__cause__) is LookupError
    recorder.assert_nothing_leaked()


def test_guarantee_11_error_of_our_own_type_that_repeats_a_token_is_cleaned(talk, server, recorder):
    def refresh(token):
        raise RefreshError(f"Could not use {token.refresh_token}.", error_description=token.refresh_token)

    auth = talk.auth(server.issue(access_token=False), refresh)
    recorder.listen(auth)
    for error in failures(talk, server, auth, recorder):
        assert "***" in str(error)
    recorder.assert_nothing_leaked()


# --- pickled errors ---


def assert_pickles_clean(error) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        dumped = pickle.dumps(error, protocol)
        assert SECRET.encode() not in dumped
        assert b"Authorization" not in dumped
        back = pickle.loads(dumped)
        assert type(back) is type(error)
        assert (str(back), back.args) == (str(error), error.args)
        assert (back.error, back.error_description) == (error.error, error.error_description)
        assert traceback.format_exception_only(back) == traceback.format_exception_only(error)
    for twin in (copy.copy(error), copy.deepcopy(error)):
        assert (type(twin), str(twin)) == (type(error), str(error))


@pytest.mark.parametrize(
    "error",
    [
        ReauthError("It failed.", error="server_error"),
        RefreshError("Later.", error="slow_down", error_description="Too fast.", retry_after=3.0, status_code=429),
        SignInRequired("Sign in.", error="invalid_grant", error_uri="https://as.test"),
        InsecureOrigin("In the clear."),
        StorageError("Damaged."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_guarantee_11_error_pickles_clean(error):
    assert_pickles_clean(error)


def test_guarantee_11_error_out_of_a_request_pickles_clean_without_its_request(talk, server):
    def refresh(token):
        raise RefreshError("Later.", retry_after=3.0, status_code=503, error="temporarily_unavailable")

    auth = talk.auth(TOKEN, refresh)

    # the refresh fails, so the 401 is an error; its request carries a secret in its header
    with pytest.raises(RefreshError) as failure:
        talk(auth, get)
    error = failure.value
    assert error.request.headers["Authorization"] == f"Bearer {ACCESS}"
    assert_pickles_clean(error)
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, RefreshError)
    assert isinstance(back, talk.package.TransportError)
    assert (back.retry_after, back.status_code) == (3.0, 503)
    with pytest.raises(RuntimeError, match="request"):
        _ = back.request
    for twin in (copy.copy(error), copy.deepcopy(error)):
        assert isinstance(twin, talk.package.TransportError)


def test_guarantee_11_error_out_of_a_request_is_not_read_into_a_header_by_repr(talk, server):
    auth = talk.auth(TOKEN, lambda token: None)
    with pytest.raises(RefreshError) as failure:
        talk(auth, get)
    assert SECRET not in repr(failure.value.request)
    assert SECRET not in repr(failure.value.request.headers)
    assert SECRET not in repr(vars(failure.value))


# --- everything at DEBUG, on a real socket ---


@pytest.mark.parametrize("kind", ["coroutine", "function", "grant"])
def test_guarantee_11_nothing_that_is_logged_at_debug_has_a_secret(socket_talk, server, recorder, kind):
    auth = socket_talk.auth(server.issue(), socket_talk.site.refresh(kind))
    recorder.listen(auth)
    server.revoke_access_tokens()
    socket_talk.all(auth, get, get)
    server.revoke_access_tokens()
    server.token_endpoint.fail_always(faults.unavailable(500))  # always, because a grant repeats its request
    with pytest.raises(RefreshError) as failure:
        socket_talk(auth, get)
    recorder.note(failure.value)
    server.token_endpoint.heal()
    auth.sign_in(server.issue())
    server.revoke_refresh_tokens()
    server.revoke_access_tokens()
    with pytest.raises(SignInRequired) as failure:
        socket_talk(auth, get)
    recorder.note(failure.value)
    auth.sign_out()
    recorded = recorder.lines.getvalue()
    for logger in ("httpx_reauth INFO", "httpx_reauth WARNING", f"{socket_talk.package.__name__} INFO", "httpcore"):
        assert logger in recorded
    assert len(recorder.secrets) >= 4
    recorder.assert_nothing_leaked()


def test_guarantee_11_listener_that_raises_a_secret_does_not_get_it_into_the_log(talk, server, recorder):
    def listener(state, action):
        raise ValueError(state.token.access_token if state.token else "nothing")

    auth = talk.auth()
    recorder.listen(auth)
    auth.store.subscribe(listener)
    server.revoke_access_tokens()
    assert talk(auth, get).status_code == 200
    assert "listener" in recorder.lines.getvalue()
    recorder.assert_nothing_leaked()


def test_guarantee_11_dispatch_of_something_that_is_no_action_does_not_repeat_it():
    with pytest.raises(TypeError) as failure:
        TokenStore().dispatch({"access_token": ACCESS})
    assert SECRET not in str(failure.value)


def test_guarantee_11_refused_values_of_a_token_are_not_repeated():
    for wrong in (
        {"access_token": f"{ACCESS}\n"},
        {"access_token": ACCESS.encode()},
        {"refresh_token": f"{REFRESH}\x00"},
        {"refresh_token": REFRESH.encode()},
        {"token_type": f"Bearer {ACCESS}"},
        {"expires_in": f"{ACCESS}"},
        {"scope": {ACCESS: 1}},
    ):
        with pytest.raises((TypeError, ValueError)) as failure:
            Token(**wrong)
        assert SECRET not in "".join(traceback.format_exception_only(failure.value))


def test_guarantee_11_server_of_the_test_kit_shows_no_secret_either():
    with AuthorizationServer() as server:
        token = server.issue()
        answer = server.respond("GET", "/me", [("Authorization", f"Bearer {token.access_token}")])
        for value in (server, server.requests, server.requests[0], answer):
            assert token.access_token not in repr(value)
