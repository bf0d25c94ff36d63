"""The errors: shared by many waiters, raised by each on its own, caught as the client's, sent to other processes."""

from __future__ import annotations

import copy
import pickle
import sys
import traceback
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_reauth import InsecureOrigin, ReauthError, RefreshError, SignInRequired, StorageError
from httpx_reauth._errors import StorageUnavailable, hide, in_request, own_copy

ERRORS = [ReauthError, RefreshError, SignInRequired, InsecureOrigin, StorageError]


class Login(RefreshError):
    """A user's subclass with an `__init__` of its own, which takes something else."""

    def __init__(self, user: str, attempt: int) -> None:
        super().__init__(f"{user} could not log in", error="locked")
        self.attempt = attempt


class Careless(RefreshError):
    """A user's subclass that does not call ours."""

    def __init__(self, code: int) -> None:
        self.code = code


def full() -> RefreshError:
    return RefreshError(
        "down", retry_after=5.0, status_code=503, error="x", error_description="y", error_uri="https://z"
    )


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_is_a_reauth_error_with_oauths_three_words(cls: type[ReauthError]):
    error = cls("no", error="a", error_description="b", error_uri="c")
    assert isinstance(error, ReauthError)
    assert (str(error), error.error, error.error_description, error.error_uri) == ("no", "a", "b", "c")
    bare = cls()
    assert (str(bare), bare.error, bare.error_description, bare.error_uri) == ("", None, None, None)


def test_only_a_refresh_error_says_when_and_what_the_server_answered():
    assert (full().retry_after, full().status_code) == (5.0, 503)
    assert (RefreshError().retry_after, RefreshError().status_code) == (None, None)
    assert not hasattr(SignInRequired(), "retry_after")


@pytest.mark.parametrize("cls", [SignInRequired, InsecureOrigin, StorageError])
def test_what_is_not_transient_is_no_refresh_error(cls: type[ReauthError]):
    assert not issubclass(cls, RefreshError)


def test_a_subclass_that_does_not_call_ours_has_the_attributes_all_the_same():
    error = Careless(7)
    assert (error.error, error.error_description, error.error_uri) == (None, None, None)
    assert (error.retry_after, error.status_code) == (None, None)
    error.resolve_retry_after(1000.0)
    assert error.retry_after is None


def test_a_storage_that_is_out_of_reach_fails_a_refresh_and_is_caught_as_either():
    error = in_request(StorageUnavailable("locked"), httpx.TransportError, None)
    assert isinstance(error, RefreshError)
    assert isinstance(error, StorageError)
    assert isinstance(error, httpx.TransportError)
    assert str(pickle.loads(pickle.dumps(error))) == "locked"


# Each waiter's own.


@pytest.mark.parametrize("error", [full(), SignInRequired("dead", error="invalid_grant"), Login("me", 3), Careless(7)])
def test_guarantee_6_a_waiters_own_copy_says_the_same_and_is_another_object(error: ReauthError):
    twin = own_copy(error)
    assert twin is not error
    assert type(twin) is type(error)
    assert twin.args == error.args
    assert str(twin) == str(error)
    assert {**vars(twin)} == {**vars(error)}
    assert twin.__cause__ is error


def test_guarantee_6_the_cause_of_a_copy_is_the_cause_of_the_failure():
    error, cause = full(), OSError("unreachable")
    error.__cause__ = cause
    assert own_copy(error).__cause__ is cause
    assert own_copy(own_copy(error)).__cause__ is cause


def test_guarantee_6_raising_copies_does_not_grow_the_traceback_of_the_shared_error():
    error = full()
    lengths = set()
    for _ in range(3):
        with pytest.raises(RefreshError) as caught:
            raise own_copy(error)
        lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert error.__traceback__ is None
    assert lengths == {1}


def test_attributes_of_a_copy_are_its_own():
    error = full()
    twin = own_copy(error)
    twin.retry_after = 1.0
    assert error.retry_after == 5.0


# Out of a request.

PACKAGES = ["httpx", "httpx2"]


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def test_out_of_a_request_a_refresh_error_is_the_clients_transport_error_as_well(package: Any):
    request = package.Request("GET", "https://api.test/me")
    error = in_request(full(), package.TransportError, request)
    assert isinstance(error, RefreshError)
    assert isinstance(error, package.TransportError)
    assert isinstance(error, package.HTTPError)
    assert error.request is request
    assert (str(error), error.retry_after, error.status_code, error.error) == ("down", 5.0, 503, "x")
    assert type(error).__name__ == "RefreshError"
    assert type(error).__module__ == "httpx_reauth._errors"
    assert type(error).__doc__ == RefreshError.__doc__


def test_of_both_packages_each_gets_its_own():
    httpx2 = pytest.importorskip("httpx2")
    one = in_request(full(), httpx.TransportError, None)
    other = in_request(full(), httpx2.TransportError, None)
    assert not isinstance(one, httpx2.HTTPError)
    assert not isinstance(other, httpx.HTTPError)
    assert type(one) is type(in_request(full(), httpx.TransportError, None))  # made once


@pytest.mark.parametrize("cls", [SignInRequired, InsecureOrigin, StorageError, ReauthError])
def test_out_of_a_request_no_other_error_is_the_clients(cls: type[ReauthError], package: Any):
    error = cls("no", error="x")
    out = in_request(error, package.TransportError, object())
    assert out is not error
    assert type(out) is cls
    assert (str(out), out.error) == ("no", "x")
    assert not isinstance(out, package.HTTPError)


def test_what_is_the_clients_error_already_is_copied_as_it_is(package: Any):
    request, other = package.Request("GET", "https://api.test/1"), package.Request("GET", "https://api.test/2")
    inner = in_request(full(), package.TransportError, request)
    outer = in_request(inner, package.TransportError, other)
    assert outer is not inner
    assert type(outer) is type(inner)


@pytest.mark.parametrize("error", [Login("me", 3), Careless(7)])
def test_a_users_own_error_keeps_its_class_out_of_a_request(error: RefreshError, package: Any):
    out = in_request(error, package.TransportError, None)
    assert isinstance(out, type(error))
    assert isinstance(out, package.TransportError)
    assert out.args == error.args
    assert type(out).__name__ == type(error).__name__


# To another process.


@pytest.mark.parametrize("error", [full(), SignInRequired("dead", error="invalid_grant"), Login("me", 3), Careless(7)])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_guarantee_11_errors_pickle_clean(error: ReauthError, protocol: int):
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is type(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)


def test_guarantee_11_an_error_out_of_a_request_pickles_without_the_request(package: Any):
    request = package.Request("GET", "https://api.test/me", headers={"Authorization": "Bearer s3cret"})
    error = in_request(full(), package.TransportError, request)
    dumped = pickle.dumps(error)
    assert b"s3cret" not in dumped
    twin = pickle.loads(dumped)
    assert type(twin) is type(error)
    assert (str(twin), twin.retry_after, twin.status_code) == ("down", 5.0, 503)
    with pytest.raises(RuntimeError, match="request"):
        _ = twin.request
    again = pickle.loads(pickle.dumps(twin))
    assert type(again) is type(error)


def test_an_error_can_be_copied():
    error = full()
    for twin in (copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is RefreshError
        assert vars(twin) == vars(error)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_notes_travel_with_an_error():
    error = full()
    error.add_note("while starting up")
    assert own_copy(error).__notes__ == ["while starting up"]
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while starting up"]


# Retry-After as a date.


@pytest.mark.parametrize(
    ("at", "wall", "seconds"),
    [(1010.0, 1000.0, 10.0), (990.0, 1000.0, 0.0), (1e12, 1000.0, 86_400.0), (None, 1000.0, None)],
)
def test_a_date_to_try_again_becomes_seconds_once_there_is_a_clock(
    at: float | None, wall: float, seconds: float | None
):
    error = RefreshError()
    error.retry_at = at
    error.resolve_retry_after(wall)
    assert error.retry_after == seconds
    error.resolve_retry_after(wall + 5000)  # it is counted once
    assert error.retry_after == seconds


# What a server echoes.


def test_guarantee_11_a_secret_that_a_server_echoes_is_taken_out_everywhere():
    error = RefreshError(
        "no s3cret here", error="s3cret", error_description="a s3cret b s3cret", error_uri="https://x/?s3cret"
    )
    hide(error, "s3cret", None, "", "other")
    assert str(error) == "no *** here"
    assert (error.error, error.error_description, error.error_uri) == ("***", "a *** b ***", "https://x/?***")


def test_guarantee_11_a_secret_is_taken_out_as_a_form_spells_it_too():
    error = RefreshError("refresh_token=a%2Fb+c%3D&x", error_description="a/b c=")
    hide(error, "a/b c=")
    assert str(error) == "refresh_token=***&x"
    assert error.error_description == "***"


def test_guarantee_11_a_secret_cut_short_by_the_bound_leaves_no_prefix():
    for filling in range(270, 620):
        said = "x" * filling + "s3cret-refresh-token"
        error = RefreshError(said, error=said, error_description=said, error_uri=said)
        hide(error, "s3cret-refresh-token")
        for text in (str(error), error.error, error.error_description, error.error_uri):
            assert text is not None
            assert "s3" not in text


def test_what_an_error_says_is_bounded():
    error = RefreshError("m" * 10_000, error="e" * 10_000, error_description="d" * 10_000, error_uri="u" * 10_000)
    hide(error)
    assert len(str(error)) == 600
    assert [len(text or "") for text in (error.error, error.error_description, error.error_uri)] == [300, 300, 300]


def test_hiding_leaves_what_is_not_text_and_not_ours_alone():
    error = RefreshError(5)  # type: ignore[arg-type]
    hide(error, "5")
    assert error.args == (5,)
    foreign = ValueError("s3cret")
    hide(foreign, "s3cret")
    assert foreign.args == ("s3cret",)
    careless = Careless(7)
    hide(careless, "7")
    assert careless.args == (7,)


def test_guarantee_11_an_echo_that_the_server_has_cut_is_taken_out_to_the_end():
    secret = "eyJhbGciOiJIUzI1NiJ9.s3cret.s3cret"
    error = RefreshError(f"unknown token {secret[:24]}...", error_description=f"({secret}) {secret[:16]} and more")
    hide(error, secret)
    assert str(error) == "unknown token ***"
    assert error.error_description == "(***) ***"
    error = RefreshError(f"{secret[:16]}... is unknown")
    hide(error, secret)
    assert str(error) == "***"


def test_guarantee_11_a_secret_of_eight_letters_is_taken_out_of_the_middle_of_a_word():
    error = RefreshError("xxs3cretlyxx", error="xxs3cretlxx")
    hide(error, "s3cretly")
    assert str(error) == "xx***xx"
    hide(error, "s3cretl")
    assert error.error == "xxs3cretlxx"  # of seven letters, only as a word of its own


def test_a_secret_too_short_to_be_one_is_taken_out_where_it_stands_alone():
    error = RefreshError("the server refuses r", error_description="r=r; r2")
    hide(error, "r")
    assert str(error) == "the server refuses ***"
    assert error.error_description == "***=***; r2"


@given(st.text(), st.text() | st.text(min_size=16))
def test_hide_takes_any_secret(text: str, secret: str):
    error = RefreshError(text, error=text, error_description=text, error_uri=text)
    hide(error, secret)
    if len(secret) >= 16 and "*" not in secret:
        assert secret not in str(error)


def test_hide_takes_half_a_letter():
    error = RefreshError("no \ud800 here")
    hide(error, "\ud800")
    assert str(error) == "no *** here"


def test_guarantee_11_of_many_cut_echoes_the_first_is_where_it_ends():
    secret = "eyJhbGciOiJIUzI1NiJ9.s3cret.s3cret"
    error = RefreshError("unknown:" + f" {secret[:20]}..." * 9)
    hide(error, secret)
    assert str(error) == "unknown: ***"


def test_what_is_raised_out_of_a_request_is_described_and_copied_as_its_error_is():
    class Elsewhere(Exception):  # a client's error that no other test has seen
        """Another package's."""

    twin = in_request(Login("me", 3), Elsewhere, object())
    cls = type(twin)
    assert cls.__bases__ == (Login, Elsewhere)
    assert (cls.__name__, cls.__module__, cls.__doc__) == ("Login", __name__, Login.__doc__)
    assert type(in_request(Login("me", 4), Elsewhere, object())) is cls
    assert type(copy.copy(twin)) is cls


def test_a_note_on_one_twin_is_not_on_the_others():
    error = RefreshError("down")
    if not hasattr(error, "add_note"):
        pytest.skip("notes came with Python 3.11")
    error.add_note("of the refresh")
    one, other = own_copy(error), own_copy(error)
    one.add_note("of one waiter")
    assert error.__notes__ == other.__notes__ == ["of the refresh"]
    assert one.__notes__ == ["of the refresh", "of one waiter"]


def test_an_error_of_one_packages_client_becomes_the_others_and_pickles():
    httpx2 = pytest.importorskip("httpx2")
    first = in_request(
        RefreshError("down", status_code=503), httpx.TransportError, httpx.Request("GET", "https://a.test")
    )
    assert isinstance(first, httpx.TransportError)
    second = in_request(first, httpx2.TransportError, httpx2.Request("GET", "https://b.test"))
    assert isinstance(second, httpx2.TransportError)
    assert not isinstance(second, httpx.TransportError)
    copied = pickle.loads(pickle.dumps(second))
    assert (type(copied), str(copied), copied.status_code) == (type(second), "down", 503)


def test_guarantee_11_of_two_secrets_one_of_which_begins_like_the_other_nothing_is_left():
    error = RefreshError("no such token: abcdefgh-and-the-rest")
    hide(error, "abcdefgh", "abcdefgh-and-the-rest")
    assert str(error) == "no such token: ***"
