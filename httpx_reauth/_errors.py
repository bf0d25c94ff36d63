"""What can go wrong, as values that many waiters can share.

One refresh fails once, but every request that waited for it raises. The shared error stays in the store, and each
waiter raises a copy of it (`copy_for_waiter`), because one exception object that is raised in many tasks collects the
tracebacks of all of them. The shared error itself has no frames (`drop_frames`): they would keep everything alive that
was in a local variable when the refresh failed, the state before and its error included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, ForwardRef, Literal, TypeAlias, TypeVar, cast

_E = TypeVar("_E", bound="ReauthError")
_C = TypeVar("_C", bound="type[ReauthError]")

# What a token endpoint's answer means for the next attempt, where status and code alone do not say it. "dead": what
# the request spent is not accepted any more; "unspent": the same answer to a request that spent nothing; "later": the
# same request may succeed in a moment; "elsewhere": the sign-in is due at another auth object, whose token is needed.
Meaning: TypeAlias = Literal["", "dead", "unspent", "later", "elsewhere"]

_MAX_RETRY_AFTER = 86_400.0  # seconds; a day. A server that says more is more likely wrong than that patient
_PACKAGE = __file__.removesuffix("_errors.py")
_STAYS_HERE = frozenset({"_request", "_refresh_token"})  # attributes that hold secrets: neither copied nor pickled


class ReauthError(Exception):
    """The base of every error of this library.

    Attributes:
        error: OAuth's error code, e.g. `invalid_client` (RFC 6749 section 5.2), or what the server has in its place, or
            None.
        error_description: the server's own words for it, printable and shortened, or None.
        error_uri: the server's page about it, or None.
        extra: the further fields of the server's answer, e.g. `trace_id`; without those that hold tokens.
    """

    # With defaults, for a user's subclass whose __init__ does not call this one.
    error: str | None = None
    error_description: str | None = None
    error_uri: str | None = None
    extra: Mapping[str, Any] = MappingProxyType({})

    _refresh_token: str | None = None  # it came with an answer that cannot be used otherwise; see `take_refresh_token`
    _meaning: Meaning = ""
    _is_ours: bool = False  # the message is this library's; of others it holds `error` and `error_description` alone
    _place: ClassVar[str | None] = None  # of a class that shows another name than its own: where it really is

    def __init__(
        self,
        message: str = "",
        *,
        error: str | None = None,
        error_description: str | None = None,
        error_uri: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.error = error
        self.error_description = error_description
        self.error_uri = error_uri
        self.extra = dict(extra or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._place or type(self), self.args, dict(_attributes(self)))


class RefreshError(ReauthError):
    """The token could not be renewed this time; a later attempt may succeed.

    Raised out of a request, it is also the client's own `TransportError` (httpx's or httpx2's), so that
    `except httpx.HTTPError` and retry helpers see it. A subclass of yours leaves a request as itself; to be seen by
    `except httpx.HTTPError`, it derives from `httpx.TransportError` as well.

    Attributes:
        retry_after: seconds until the next refresh is tried: what the server asked for
            (`Retry-After`, RFC 9110 section 10.2.3), else what the back-off came to; None outside of a `Reauth`.
        retry_at: the same as a date (seconds since the epoch), until a clock turns it into `retry_after`.
        status_code: the HTTP status of the token endpoint's answer, or None if there was none.

    Raises:
        TypeError: `retry_after` is not a number.
    """

    retry_after: float | None = None
    status_code: int | None = None
    retry_at: float | None = None

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        status_code: int | None = None,
        error: str | None = None,
        error_description: str | None = None,
        error_uri: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, error=error, error_description=error_description, error_uri=error_uri, extra=extra)
        if not isinstance(cast("object", retry_after), (int, float, type(None))):
            raise TypeError(
                f"retry_after must be a number of seconds or None, not {type(retry_after).__name__}. "
                "Of a header, Token.from_response reads it; by hand, write float(...)."
            )
        self.retry_after = retry_after
        self.status_code = status_code
        self.retry_at = None

    def resolve_retry_after(self, wall: float) -> None:
        """Turn a `Retry-After` that was a date into seconds, counted from `wall` (seconds since the epoch)."""
        if self.retry_at is not None:
            set_retry_after(self, sane_retry_after(self.retry_at - wall))
            self.retry_at = None


class SignInRequired(ReauthError):
    """Nothing but a new sign-in helps: the refresh token is dead (RFC 6749 section 5.2), or there is none.

    It stays the answer, without a further token request, until `Reauth.sign_in` is called.
    """


class InsecureOrigin(ReauthError):
    """The token would have gone over plain http to another machine (RFC 6750 section 5.3); nothing was sent."""


class StorageError(ReauthError):
    """The storage cannot be read or written: damaged, foreign, locked or out of reach."""


class StorageUnavailable(RefreshError, StorageError):
    """A refresh needs the storage, which is damaged, out of reach or busy: nothing was asked of the server."""

    _is_busy: bool = False  # it works, and somebody else has its lock


def sane_retry_after(seconds: float) -> float:
    """What a server asks for, within reason: not less than nothing, not more than a day."""
    return min(max(0.0, seconds), _MAX_RETRY_AFTER)


def set_retry_after(error: RefreshError, seconds: float) -> None:
    """Say when `error` may be followed by another attempt, unless its class lets nobody say so."""
    with suppress(AttributeError):  # a user's frozen dataclass, or a property
        error.retry_after = seconds


def printable(text: str) -> str:
    """`text`, fit for one line of a log."""
    return "".join(char if char.isprintable() else "?" for char in text)


# What an error carries for this library alone.


def storage_busy(message: str) -> StorageUnavailable:
    """The error of a refresh for which a storage that works was not free in time."""
    error: Any = StorageUnavailable(message)
    error._is_busy = True
    return cast("StorageUnavailable", error)


def is_away(error: StorageUnavailable) -> bool:
    """Does the storage not work, other than one that is merely busy?"""
    return not cast("Any", error)._is_busy


def in_our_words(error: _E, meaning: Meaning = "") -> _E:
    """`error`, whose message this library has written; of others, it quotes `error` and `error_description` alone."""
    private: Any = error
    private._is_ours, private._meaning = True, meaning
    error.args = tuple(in_ascii(arg) if isinstance(arg, str) else arg for arg in error.args)  # a class, a path
    return error


def is_ours(error: ReauthError) -> bool:
    """Has this library written the message of `error`?"""
    return bool(cast("Any", error)._is_ours)


def meaning_of(error: ReauthError) -> Meaning:
    """What the answer behind `error` means for the next attempt."""
    return cast("Meaning", cast("Any", error)._meaning)


def is_due_elsewhere(error: object) -> bool:
    """Does `error` say that somebody must sign in, at another auth object whose token is needed?"""
    return isinstance(error, SignInRequired) and meaning_of(error) == "elsewhere"


def is_final(error: object) -> bool:
    """Is `error` the answer until somebody signs in here?"""
    return isinstance(error, SignInRequired) and not is_due_elsewhere(error)


def keep_refresh_token(error: BaseException, refresh_token: str | None) -> None:
    """Let `error` carry a refresh token that came with an answer that cannot be used: it replaces the spent one."""
    if refresh_token is not None:
        with suppress(AttributeError):
            cast("Any", error)._refresh_token = refresh_token


def take_refresh_token(error: BaseException) -> str | None:
    """The refresh token that `error` carries, which then carries it no longer; None if it carries none.

    It may be carried by what `error` was raised for, or by a member of a group.
    """
    taken: str | None = None
    for one in _with_all_behind(error):
        refresh_token: str | None = getattr(one, "_refresh_token", None)
        if refresh_token is not None:
            taken = taken or refresh_token
            with suppress(AttributeError):
                del cast("Any", one)._refresh_token
    return taken


def after_spending_nothing(error: ReauthError) -> ReauthError:
    """What `error` means where the request had spent nothing: a dead refresh token was not the reason.

    A client or a login was refused. That can be mended without a sign-in (a clock that was wrong, a password that was
    changed back), so it is a `RefreshError`, which is tried again after 60 s or more. A `SignInRequired` that a user
    has raised stays what it is.
    """
    if not (isinstance(error, SignInRequired) and meaning_of(error) == "dead"):
        return error
    refused = RefreshError(
        f"The login failed: the server refused it ({quoted(error.error, error.error_description)}), and no refresh "
        "token was sent. Check the credentials, the client's settings and the clock; it is tried again after a minute "
        "or more.",
        error=error.error,
        error_description=error.error_description,
        error_uri=error.error_uri,
        extra=error.extra,
    )
    refused.__cause__ = error.__cause__
    keep_refresh_token(refused, take_refresh_token(error))
    return in_our_words(refused, "unspent")


def quoted(code: object, words: object) -> str:
    """What the server said, for a message: in ASCII, since not every console shows more."""
    said = in_ascii(str(code or "no error code"))
    return f"{said} ({in_ascii(str(words))})" if words else said


def in_ascii(text: str) -> str:
    """`text`, its further characters written as escapes."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


# Copies.


def copy_for_waiter(error: _E) -> _E:
    """A copy of the shared `error`, for one waiter to raise: same type, words and attributes, same cause."""
    return _copy(error, type(error))


def as_client_error(
    error: ReauthError, client_errors: tuple[type[RefreshError], ...], transport_error: type[Exception], request: object
) -> ReauthError:
    """What a request raises for `error`: a copy; of a `RefreshError` of ours, one that is the client's error as well.

    Args:
        error: the shared error, or a copy of it.
        client_errors: the classes that are both; the first base of each is ours.
        transport_error: the client's own class.
        request: what was to be sent.
    """
    cls = type(error)
    ours = _base(cls) if cast("Any", cls)._place else cls  # perhaps it came through the other package's client
    copied = _copy(error, next((one for one in client_errors if _base(one) is ours), cls))
    if isinstance(copied, transport_error):
        cast("Any", copied)._request = request
    return copied


def shown_as_its_base(cls: _C) -> _C:
    """Let a class that is a client's error as well show the name of its first base, in tracebacks and in `repr`.

    There is nothing else to know about it: it is caught as that base, or as the client's class.
    """
    cast("Any", cls)._place = f"{cls.__module__}:{cls.__qualname__}"  # for pickling
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(cls, name, getattr(_base(cls), name))
    return cls


def drop_frames(error: BaseException) -> None:
    """Take the frames out of `error` and of everything behind it, and what says the same as the error before it.

    A refused connection is an `OSError`, an error of httpcore and one of httpx, all with the same words: the last is
    enough.
    """
    for one in list(_with_all_behind(error)):
        cause = one.__cause__
        seen = {id(one)}
        while one is not error and cause is not None and id(cause) not in seen and _words(cause) == _words(one):
            seen.add(id(cause))
            cause = cause.__cause__
        is_shown = cause is None and not one.__suppress_context__
        # By way of BaseException, since a user's may be a frozen dataclass.
        BaseException.__setattr__(one, "__traceback__", None)
        BaseException.__setattr__(one, "__context__", one.__context__ if is_shown else None)
        if cause is not one.__cause__:
            BaseException.__setattr__(one, "__cause__", cause)


def note_place(error: BaseException, function: object) -> None:
    """Remember where `error` left the user's `function`, before its frames are dropped."""
    if not isinstance(error, ReauthError):
        with suppress(AttributeError):
            cast("Any", error)._left_at = place_of(error, function)


def place_of(error: BaseException, function: object) -> str:
    """File and line at which `error` left the user's `function`: the deepest in that function's file; else nothing."""
    from inspect import unwrap
    from traceback import walk_tb

    noted: str | None = getattr(error, "_left_at", None)
    if noted is not None:
        return noted
    function = getattr(function, "func", function)  # of a partial
    for name in ("flow", "__call__"):  # of a grant, of an object
        if not hasattr(function, "__code__"):
            function = getattr(cast("Any", type(function)), name, function)
    code = getattr(unwrap(cast("Any", function)), "__code__", None)
    lines = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    foreign = [at for at in lines if not at[0].startswith(_PACKAGE)]
    own = [at for at in foreign if code is not None and at[0] == code.co_filename]
    file, line = (own or foreign[:1] or [("", 0)])[-1]
    return f"{in_ascii(file)}:{line}" if file else ""


def _with_all_behind(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised for, and the members of a group."""
    seen: set[int] = set()
    left: list[object] = [error]
    while left:
        one = left.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [*members_of(one), one.__cause__, one.__context__]


def members_of(error: BaseException) -> tuple[object, ...]:
    """What an `ExceptionGroup` holds, also one of the package `exceptiongroup`, for Python 3.10; nothing of others."""
    members: object = getattr(error, "exceptions", ())
    return cast("tuple[object, ...]", members) if isinstance(members, tuple) else ()


def _words(error: BaseException) -> str | None:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's own
        return None


def _copy(error: ReauthError, cls: type[_E]) -> _E:
    copied = _blank(cls, error.args)
    for name, value in _attributes(error):
        object.__setattr__(copied, name, value)  # of a frozen dataclass, too
    object.__setattr__(copied, "__cause__", error if error.__cause__ is None else error.__cause__)
    return copied


def _attributes(error: ReauthError) -> Iterator[tuple[str, Any]]:
    """Every attribute that travels with `error`, also those that a user's subclass has slots for."""
    for name, value in error.__dict__.items():
        if name not in _STAYS_HERE:
            yield name, _own(value) if name in ("__notes__", "extra") else value  # others add to theirs
    for cls in type(error).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(error, name):
                yield name, getattr(error, name)


def _own(value: Any) -> Any:
    return cast("Any", value).copy() if isinstance(value, (list, dict)) else value


def _base(cls: type[ReauthError]) -> type[ReauthError]:
    return cls.__mro__[1]


def _blank(cls: type[_E], args: tuple[Any, ...]) -> _E:
    """An error of `cls` with these arguments; its `__init__` is not called, since a user's may take something else."""
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    blank: _E = builtin.__new__(cls, *args)
    object.__setattr__(blank, "args", args)
    return blank


def _rebuild(cls: type[ReauthError] | str, args: tuple[Any, ...], attributes: dict[str, Any]) -> ReauthError:
    if isinstance(cls, str):
        module, _, name = cls.partition(":")
        cls = cast("type[ReauthError]", getattr(import_module(module), name))
        attributes = {**attributes, "_request": None}
    error = _blank(cls, args)
    for name, value in attributes.items():
        object.__setattr__(error, name, value)
    return error


def show_as_public(names: Mapping[str, object]) -> None:
    """Let each class of a package's `__all__` say that it belongs to the package, not to a module inside of it.

    What its fields are annotated with is still looked up in that module, so `typing.get_type_hints` works.

    Args:
        names: the package's `globals()`.
    """
    package = cast("str", names["__name__"])
    public = cast("list[str]", names["__all__"])
    for value in [value for name, value in names.items() if name in public and isinstance(value, type)]:
        written_in = value.__module__
        if written_in == package or not written_in.startswith(f"{package}."):
            continue
        annotations = vars(value).get("__annotations__", {})
        for field, kind in annotations.items():
            if isinstance(kind, str):
                annotations[field] = ForwardRef(kind, is_argument=False, module=written_in)
        value.__module__ = package
