"""Tests of the errors: each of many waiters raises a copy, requests raise the client's class, and errors pickle."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import traceback
import typing
from typing import Any

import httpx
import pytest
from typing_extensions import Self

import httpx_reauth
import httpx_reauth.httpx2
from httpx_reauth import InsecureOrigin, ReauthError, RefreshError, SignInRequired, StorageError, StorageUnavailable
from httpx_reauth._errors import as_client_error, copy_for_waiter

ERRORS = [ReauthError, RefreshError, SignInRequired, InsecureOrigin, StorageError, StorageUnavailable]
MODULES = {"httpx": httpx_reauth, "httpx2": httpx_reauth.httpx2}


def out_of(error: ReauthError, package: Any, request: object = None) -> Any:
    """Return the exception that a request raises for `error`, with the client of this library."""
    http_package = MODULES[package.__name__].Reauth._package
    return as_client_error(error, http_package.client_errors, http_package.transport_error, request)


class Login(RefreshError):
    """A user's subclass whose `__init__` has other arguments."""

    def __init__(self, user: str, attempt: int) -> None:
        super().__init__(f"{user} could not log in", error="locked")
        self.attempt = attempt


class Careless(RefreshError):
    """A user's subclass whose `__init__` does not call ours."""

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


def test_only_a_refresh_error_has_retry_after_and_the_status_of_the_answer():
    assert (full().retry_after, full().status_code) == (5.0, 503)
    assert (RefreshError().retry_after, RefreshError().status_code) == (None, None)
    assert not hasattr(SignInRequired(), "retry_after")


@pytest.mark.parametrize("cls", [SignInRequired, InsecureOrigin, StorageError])
def test_an_error_that_is_not_transient_is_no_refresh_error(cls: type[ReauthError]):
    assert not issubclass(cls, RefreshError)


def test_a_subclass_that_does_not_call_ours_has_the_attributes_all_the_same():
    error = Careless(7)
    assert (error.error, error.error_description, error.error_uri) == (None, None, None)
    assert (error.retry_after, error.status_code) == (None, None)
    error.resolve_retry_after(1000.0)
    assert error.retry_after is None


def test_a_storage_that_is_out_of_reach_fails_a_refresh_and_is_caught_as_either():
    error = out_of(StorageUnavailable("locked"), httpx)
    assert isinstance(error, RefreshError)
    assert isinstance(error, StorageError)
    assert isinstance(error, StorageUnavailable)
    assert isinstance(error, httpx.TransportError)
    assert str(pickle.loads(pickle.dumps(error))) == "locked"


@pytest.mark.parametrize("retry_after", ["5", b"5", object()])
def test_a_header_is_no_number_of_seconds(retry_after: Any):
    with pytest.raises(TypeError, match="retry_after must be a number of seconds"):
        RefreshError("busy", retry_after=retry_after)


# Exceptions of a user.


class KeywordsOnly(RefreshError):
    def __init__(self, *, quota: int) -> None:
        super().__init__(f"The quota of {quota} is used up.", retry_after=7.0)
        self.quota = quota


class OwnNew(RefreshError):
    def __new__(cls, user: str, *, attempt: int) -> Self:
        self = super().__new__(cls, user)
        self.attempt = attempt
        return self

    def __init__(self, user: str, *, attempt: int) -> None:
        super().__init__(f"{user} failed {attempt} times")


class Slotted(RefreshError):
    __slots__ = ("quota",)

    def __init__(self, quota: int) -> None:
        super().__init__("No.")
        self.quota = quota


class AlsoAnOSError(RefreshError, OSError):
    def __init__(self, number: int, words: str) -> None:
        super().__init__(words)
        self.number = number


@dataclasses.dataclass
class Values(RefreshError):
    quota: int


@dataclasses.dataclass(frozen=True)
class FrozenValues(RefreshError):
    quota: int


class SaysWhenItself(RefreshError):
    def __init__(self, quota: int) -> None:
        Exception.__init__(self, "No.")
        self.quota = quota

    @property
    def retry_after(self) -> float:  # type: ignore[override]
        return 7.0


class ClientsToo(RefreshError, httpx.TransportError):
    def __init__(self, quota: int) -> None:
        RefreshError.__init__(self, "No.")
        self.quota = quota


OWN = [
    Login("me", 3),
    Careless(7),
    KeywordsOnly(quota=5),
    OwnNew("me", attempt=2),
    Slotted(5),
    AlsoAnOSError(5, "io"),
    Values(5),
    FrozenValues(5),
    SaysWhenItself(5),
    ClientsToo(5),
]
own = pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)


def values_of(error: Any) -> dict[str, Any]:
    named = {name: getattr(error, name, None) for name in ("quota", "code", "attempt", "number", "retry_after")}
    return {**named, "args": error.args, "str": str(error)}


@own
def test_a_users_own_error_is_copied_and_pickled_whatever_its_constructor_takes(error: RefreshError):
    for twin in (copy_for_waiter(error), pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert twin is not error
        assert values_of(twin) == values_of(error)


@own
@pytest.mark.parametrize("package", ["httpx", "httpx2"])
def test_a_users_own_error_leaves_a_refresh_and_a_request_as_itself(error: RefreshError, package: str):
    def refresh(token: httpx_reauth.Token) -> httpx_reauth.Token:
        raise error

    client_of = pytest.importorskip(package)
    auth = MODULES[package].Reauth(refresh)
    client = client_of.Client(auth=auth, transport=client_of.MockTransport(lambda _: client_of.Response(200)))
    for ask in (auth.get_token, lambda: client.get("https://api.test")):
        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                ask()
            assert type(caught.value) is type(error)
            assert caught.value is not error
            assert {**values_of(caught.value), "retry_after": None} == {**values_of(error), "retry_after": None}
    if isinstance(error, client_of.TransportError):
        assert caught.value.request.url.host == "api.test"  # type: ignore[attr-defined]


# A copy for each waiter.


@pytest.mark.parametrize("error", [full(), SignInRequired("dead", error="invalid_grant"), Login("me", 3), Careless(7)])
def test_guarantee_6_a_waiters_own_copy_says_the_same_and_is_another_object(error: ReauthError):
    twin = copy_for_waiter(error)
    assert twin is not error
    assert type(twin) is type(error)
    assert twin.args == error.args
    assert str(twin) == str(error)
    assert {**vars(twin)} == {**vars(error)}
    assert twin.__cause__ is error


def test_guarantee_6_the_cause_of_a_copy_is_the_cause_of_the_failure():
    error, cause = full(), OSError("unreachable")
    error.__cause__ = cause
    assert copy_for_waiter(error).__cause__ is cause
    assert copy_for_waiter(copy_for_waiter(error)).__cause__ is cause


def test_guarantee_6_raising_copies_does_not_grow_the_traceback_of_the_shared_error():
    error = full()
    lengths = set()
    for _ in range(3):
        with pytest.raises(RefreshError) as caught:
            raise copy_for_waiter(error)
        lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert error.__traceback__ is None
    assert lengths == {1}


def test_attributes_of_a_copy_are_its_own():
    error = full()
    twin = copy_for_waiter(error)
    twin.retry_after = 1.0
    assert error.retry_after == 5.0


# Errors that a request raises.

PACKAGES = ["httpx", "httpx2"]


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


@pytest.mark.parametrize("cls", [RefreshError, StorageUnavailable])
def test_out_of_a_request_a_refresh_error_is_the_clients_transport_error_as_well(cls: type[RefreshError], package: Any):
    request = package.Request("GET", "https://api.test/me")
    error = out_of(cls("down", retry_after=5.0, status_code=503, error="x"), package, request)
    assert isinstance(error, cls)
    assert isinstance(error, package.TransportError)
    assert isinstance(error, package.HTTPError)
    assert error.request is request
    assert (str(error), error.retry_after, error.status_code, error.error) == ("down", 5.0, 503, "x")


@pytest.mark.parametrize("cls", [RefreshError, StorageUnavailable])
def test_out_of_a_request_it_reads_like_the_public_class(cls: type[RefreshError], package: Any):
    error = out_of(cls("down"), package)
    assert repr(error) == f"{cls.__name__}('down')"
    lines = traceback.format_exception_only(error)
    assert lines == [f"httpx_reauth.{cls.__name__}: down\n"]
    assert type(error).__doc__ == cls.__doc__


def test_a_request_of_each_package_gets_the_class_of_that_package():
    httpx2 = pytest.importorskip("httpx2")
    one, other = out_of(full(), httpx), out_of(full(), httpx2)
    assert not isinstance(one, httpx2.HTTPError)
    assert not isinstance(other, httpx.HTTPError)
    assert type(one) is type(out_of(full(), httpx))


@pytest.mark.parametrize("cls", [SignInRequired, InsecureOrigin, StorageError, ReauthError])
def test_out_of_a_request_no_other_error_is_the_clients(cls: type[ReauthError], package: Any):
    error = cls("no", error="x")
    out = out_of(error, package, object())
    assert out is not error
    assert type(out) is cls
    assert (str(out), out.error) == ("no", "x")
    assert not isinstance(out, package.HTTPError)


def test_what_is_the_clients_error_already_is_copied_for_the_request_that_raises_it(package: Any):
    request, other = package.Request("GET", "https://api.test/1"), package.Request("GET", "https://api.test/2")
    inner = out_of(full(), package, request)
    outer = out_of(inner, package, other)
    assert outer is not inner
    assert type(outer) is type(inner)
    assert (inner.request, outer.request) == (request, other)


# Errors that are pickled for another process.


@pytest.mark.parametrize("error", [full(), SignInRequired("dead", error="invalid_grant"), Login("me", 3), Careless(7)])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_guarantee_11_errors_pickle_clean(error: ReauthError, protocol: int):
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is type(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)


@pytest.mark.parametrize("cls", [RefreshError, StorageUnavailable])
def test_guarantee_11_an_error_out_of_a_request_pickles_without_the_request(cls: type[RefreshError], package: Any):
    request = package.Request("GET", "https://api.test/me", headers={"Authorization": "Bearer s3cret"})
    error = out_of(cls("down", retry_after=5.0, status_code=503), package, request)
    dumped = pickle.dumps(error)
    assert b"s3cret" not in dumped
    twin = pickle.loads(dumped)
    assert type(twin) is type(error)
    assert (str(twin), twin.retry_after, twin.status_code) == ("down", 5.0, 503)
    with pytest.raises(RuntimeError, match="request"):
        _ = twin.request
    for again in (pickle.loads(pickle.dumps(twin)), copy.copy(error), copy.deepcopy(error)):
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
    assert copy_for_waiter(error).__notes__ == ["while starting up"]
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
    error.resolve_retry_after(wall + 5000)  # it is converted only once
    assert error.retry_after == seconds


def test_an_error_of_one_packages_client_becomes_the_others_and_pickles():
    httpx2 = pytest.importorskip("httpx2")
    first = out_of(RefreshError("down", status_code=503), httpx, httpx.Request("GET", "https://a.test"))
    second = out_of(first, httpx2, httpx2.Request("GET", "https://b.test"))
    assert isinstance(second, httpx2.TransportError)
    assert not isinstance(second, httpx.TransportError)
    copied = pickle.loads(pickle.dumps(second))
    assert (type(copied), str(copied), copied.status_code) == (type(second), "down", 503)


def test_a_note_on_one_copy_is_not_on_the_others():
    error = RefreshError("down")
    if not hasattr(error, "add_note"):
        pytest.skip("notes came with Python 3.11")
    error.add_note("of the refresh")
    one, other = copy_for_waiter(error), copy_for_waiter(error)
    one.add_note("of one waiter")
    assert error.__notes__ == other.__notes__ == ["of the refresh"]
    assert one.__notes__ == ["of the refresh", "of one waiter"]


def test_a_further_field_that_one_waiter_changes_is_not_changed_for_the_others():
    error = RefreshError("down", extra={"trace_id": "7"})
    copy_for_waiter(error).extra["trace_id"] = "8"  # type: ignore[index]
    assert error.extra == {"trace_id": "7"}


# Names, and what an error keeps alive.


def test_guarantee_11_a_public_name_says_where_it_is_imported_from():
    for name in httpx_reauth.__all__:
        value = getattr(httpx_reauth, name)
        assert getattr(value, "__module__", "httpx_reauth") in ("httpx_reauth", "typing", "types"), name
    assert traceback.format_exception_only(SignInRequired("No.")) == ["httpx_reauth.SignInRequired: No.\n"]


@pytest.mark.parametrize(
    "name", [name for name in httpx_reauth.__all__ if dataclasses.is_dataclass(getattr(httpx_reauth, name))]
)
def test_the_annotations_of_a_public_value_can_be_read(name: str):
    assert typing.get_type_hints(getattr(httpx_reauth, name)) is not None
