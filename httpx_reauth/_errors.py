"""The errors of this library. Many waiters can share one error.

If a refresh fails, every request that waited for the refresh raises an error. The shared error stays in the store. Each
waiter raises a copy (`copy_for_waiter`): if many tasks raised one exception object, it would collect all their
tracebacks. The shared error has no frames (`drop_frames`): frames would keep all local variables of the failed refresh
alive, among them the previous state and its error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, ForwardRef, Literal, TypeAlias, TypeVar, cast

_E = TypeVar("_E", bound="ReauthError")
_C = TypeVar("_C", bound="type[ReauthError]")

# The meaning of a token endpoint's response for the next attempt, if it does not follow from status and code. "dead":
# the server refuses the refresh token or the code that was sent. "unspent": the same response to a request that spent
# nothing. "later": the same request may succeed in a moment. "elsewhere": the refresh needs the token of another auth
# object, and somebody has to sign in there.
Meaning: TypeAlias = Literal["", "dead", "unspent", "later", "elsewhere"]

_MAX_RETRY_AFTER = 86_400.0  # seconds: one day; a longer time is probably a mistake of the server
_PACKAGE = __file__.removesuffix("_errors.py")
_STAYS_HERE = frozenset({"_request", "_refresh_token"})  # attributes with secrets, which are neither copied nor pickled


class ReauthError(Exception):
    """The base class of all errors of this library.

    Attributes:
        error: the OAuth error code, e.g. `invalid_client` (RFC 6749 section 5.2), or the server's value in its place;
            None if there is none.
        error_description: the server's description of the error, printable and shortened; None if there is none.
        error_uri: the URL of a page about the error; None if there is none.
        extra: the other fields of the server's response, e.g. `trace_id`, without the fields that contain tokens.
    """

    # The defaults are for a user's subclass whose __init__ does not call this one.
    error: str | None = None
    error_description: str | None = None
    error_uri: str | None = None
    extra: Mapping[str, Any] = MappingProxyType({})

    _refresh_token: str | None = None  # a refresh token in a response without a usable token; see `take_refresh_token`
    _meaning: Meaning = ""
    _is_ours: bool = False  # this library wrote the message; it quotes only `error` and `error_description`
    _place: ClassVar[str | None] = None  # the real module and name of a class that shows the name of its base

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

    A `RefreshError` that a request raises is also the client's `TransportError` (httpx's or httpx2's). So
    `except httpx.HTTPError` and retry helpers catch it. A request raises your subclass unchanged. To let
    `except httpx.HTTPError` catch your subclass, derive it from `httpx.TransportError` as well.

    Attributes:
        retry_after: seconds until the next refresh may start: the time that the server asked for (`Retry-After`, RFC
            9110 section 10.2.3), or the back-off, if that is longer. Outside of a `Reauth`: the server's time, or None.
        retry_at: a `Retry-After` that was a date (seconds since the epoch), until it is converted to `retry_after`.
        status_code: the HTTP status of the token endpoint's response; None if there was no response.

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
        """Convert a `Retry-After` that was a date to seconds, counted from `wall` (seconds since the epoch)."""
        if self.retry_at is not None:
            set_retry_after(self, sane_retry_after(self.retry_at - wall))
            self.retry_at = None


class SignInRequired(ReauthError):
    """Somebody has to sign in: the server refuses the refresh token (RFC 6749 section 5.2), or there is none.

    Every further call raises this error, without a token request, until somebody calls `Reauth.sign_in`.
    """


class InsecureOrigin(ReauthError):
    """The token would have been sent over plain http to another machine (RFC 6750 section 5.3). Nothing was sent."""


class StorageError(ReauthError):
    """The storage cannot be read or written: it is damaged, locked or not reachable, or has another program's data."""


class StorageUnavailable(RefreshError, StorageError):
    """A refresh could not use the storage: it is damaged, not reachable or busy. No token request was sent."""

    _is_busy: bool = False  # the storage works, but its lock was not free in time


def sane_retry_after(seconds: float) -> float:
    """Return `seconds`, the `Retry-After` of a server, limited to the range from 0 seconds to one day."""
    return min(max(0.0, seconds), _MAX_RETRY_AFTER)


def set_retry_after(error: RefreshError, seconds: float) -> None:
    """Set `error.retry_after`, unless the class of `error` forbids that."""
    with suppress(AttributeError):  # the error may be a user's frozen dataclass, or `retry_after` a property
        error.retry_after = seconds


def printable(text: str) -> str:
    """Return `text` for one line of a log: each unprintable character becomes a question mark."""
    return "".join(char if char.isprintable() else "?" for char in text)


# The private attributes of errors.


def storage_busy(message: str) -> StorageUnavailable:
    """Return the error of a refresh that could not get the lock of a working storage in time."""
    error: Any = StorageUnavailable(message)
    error._is_busy = True
    return cast("StorageUnavailable", error)


def is_away(error: StorageUnavailable) -> bool:
    """Did the storage fail? False: it works, but its lock was not free in time."""
    return not cast("Any", error)._is_busy


def in_our_words(error: _E, meaning: Meaning = "") -> _E:
    """Mark `error` as an error whose message this library wrote, convert its text to ASCII, and return it."""
    private: Any = error
    private._is_ours, private._meaning = True, meaning
    error.args = tuple(in_ascii(arg) if isinstance(arg, str) else arg for arg in error.args)  # e.g. a path
    return error


def is_ours(error: ReauthError) -> bool:
    """Did this library write the message of `error`?"""
    return bool(cast("Any", error)._is_ours)


def meaning_of(error: ReauthError) -> Meaning:
    """Return what the server's response, which caused `error`, means for the next attempt."""
    return cast("Meaning", cast("Any", error)._meaning)


def is_due_elsewhere(error: object) -> bool:
    """Does `error` mean that somebody must sign in at another auth object, whose token the refresh needs?"""
    return isinstance(error, SignInRequired) and meaning_of(error) == "elsewhere"


def is_final(error: object) -> bool:
    """Does `error` last until somebody signs in at this auth object?"""
    return isinstance(error, SignInRequired) and not is_due_elsewhere(error)


def keep_refresh_token(error: BaseException, refresh_token: str | None) -> None:
    """Attach the refresh token in an unusable response to `error`. It replaces the refresh token that was spent."""
    if refresh_token is not None:
        with suppress(AttributeError):
            cast("Any", error)._refresh_token = refresh_token


def take_refresh_token(error: BaseException) -> str | None:
    """Remove and return the refresh token that is attached to `error`; None if there is none.

    The refresh token may also be attached to a cause or context of `error`, or to a member of a group.
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
    """Convert an `invalid_grant` for a request that had spent nothing to a `RefreshError`; return any other error.

    The server has refused the client or the login, not a refresh token. Somebody may correct that without a sign-in (a
    wrong clock, a changed password). So the refresh is tried again, after 60 s or more. A `SignInRequired` that the
    user's code has raised is not converted.
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


def with_message(error: RefreshError, text: str) -> RefreshError:
    """Return a `RefreshError` with the message `text`, and with the attributes and the cause of `error`."""
    another = RefreshError(
        text,
        retry_after=error.retry_after,
        status_code=error.status_code,
        error=error.error,
        error_description=error.error_description,
        error_uri=error.error_uri,
        extra=error.extra,
    )
    another.__cause__ = error.__cause__
    return another


def quoted(code: object, words: object) -> str:
    """Return the server's error code and description in ASCII, for a message. Some consoles show only ASCII."""
    said = in_ascii(str(code or "no error code"))
    return f"{said} ({in_ascii(str(words))})" if words else said


def in_ascii(text: str) -> str:
    """Return `text` in ASCII: any other character becomes an escape sequence."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


# Copies.


def copy_for_waiter(error: _E) -> _E:
    """Return a copy of the shared `error` for one waiter, with the same type, message, attributes and cause."""
    return _copy(error, type(error))


def as_client_error(
    error: ReauthError, client_errors: tuple[type[RefreshError], ...], transport_error: type[Exception], request: object
) -> ReauthError:
    """Return the copy of `error` that a request raises. A `RefreshError` of this library becomes a client's error, too.

    Args:
        error: the shared error, or a copy of it.
        client_errors: the classes that are both errors; the first base of each is a class of this library.
        transport_error: the `TransportError` of the client's package.
        request: the request.
    """
    cls = type(error)
    ours = _base(cls) if cast("Any", cls)._place else cls  # the other package's client may have raised it
    copied = _copy(error, next((one for one in client_errors if _base(one) is ours), cls))
    if isinstance(copied, transport_error):
        cast("Any", copied)._request = request
    return copied


def shown_as_its_base(cls: _C) -> _C:
    """Decorate a class that is a client's error as well: tracebacks and `repr` show the name of its first base.

    Users need only that name: they catch the error as that base, or as the client's class.
    """
    cast("Any", cls)._place = f"{cls.__module__}:{cls.__qualname__}"  # for pickling
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(cls, name, getattr(_base(cls), name))
    return cls


def drop_frames(error: BaseException) -> None:
    """Remove the frames from `error`, and from its causes, contexts and group members; also remove repeated causes.

    For a refused connection there are an `OSError`, an error of httpcore and an error of httpx, all with the same
    message. The last of them is enough.
    """
    for one in list(_with_all_behind(error)):
        cause = one.__cause__
        seen = {id(one)}
        while one is not error and cause is not None and id(cause) not in seen and _words(cause) == _words(one):
            seen.add(id(cause))
            cause = cause.__cause__
        is_shown = cause is None and not one.__suppress_context__
        # Set with BaseException.__setattr__: a user's exception class may be a frozen dataclass.
        BaseException.__setattr__(one, "__traceback__", None)
        BaseException.__setattr__(one, "__context__", one.__context__ if is_shown else None)
        if cause is not one.__cause__:
            BaseException.__setattr__(one, "__cause__", cause)


def note_place(error: BaseException, function: object) -> None:
    """Remember the place at which `error` left the user's `function`, before the frames are removed."""
    if not isinstance(error, ReauthError):
        with suppress(AttributeError):
            cast("Any", error)._left_at = place_of(error, function)


def place_of(error: BaseException, function: object) -> str:
    """Return the file and line at which `error` left the user's `function`, or an empty string.

    The place is that of the deepest frame in the file of `function`; else of the first frame outside of this library.
    """
    from inspect import unwrap
    from traceback import walk_tb

    noted: str | None = getattr(error, "_left_at", None)
    if noted is not None:
        return noted
    function = getattr(function, "func", function)  # the function of a `functools.partial`
    for name in ("flow", "__call__"):  # the method of a grant, or of another object
        if not hasattr(function, "__code__"):
            function = getattr(cast("Any", type(function)), name, function)
    code = getattr(unwrap(cast("Any", function)), "__code__", None)
    lines = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    foreign = [at for at in lines if not at[0].startswith(_PACKAGE)]
    own = [at for at in foreign if code is not None and at[0] == code.co_filename]
    file, line = (own or foreign[:1] or [("", 0)])[-1]
    return f"{in_ascii(file)}:{line}" if file else ""


def _with_all_behind(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, then its causes, its contexts and the members of groups, each once."""
    seen: set[int] = set()
    left: list[object] = [error]
    while left:
        one = left.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [*members_of(one), one.__cause__, one.__context__]


def members_of(error: BaseException) -> tuple[object, ...]:
    """Return the members of an exception group, else an empty tuple.

    On Python 3.10, the class comes from the package `exceptiongroup`.
    """
    members: object = getattr(error, "exceptions", ())
    return cast("tuple[object, ...]", members) if isinstance(members, tuple) else ()


def _words(error: BaseException) -> str | None:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's `__str__` may raise anything
        return None


def _copy(error: ReauthError, cls: type[_E]) -> _E:
    copied = _blank(cls, error.args)
    for name, value in _attributes(error):
        object.__setattr__(copied, name, value)  # the class may be a frozen dataclass
    object.__setattr__(copied, "__cause__", error if error.__cause__ is None else error.__cause__)
    return copied


def _attributes(error: ReauthError) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that a copy or a pickle of `error` gets, also those in the slots of a user's subclass."""
    for name, value in error.__dict__.items():
        if name not in _STAYS_HERE:
            yield name, _own(value) if name in ("__notes__", "extra") else value  # copied, since the user may change it
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
    """Return an error of `cls` with these arguments.

    `__init__` is not called: in a user's subclass, it may have other parameters.
    """
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
    """Set `__module__` to the package for each class of its `__all__` that a module inside of it defines.

    The annotations of the class are still looked up in the module that defines it, so `typing.get_type_hints` works.

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
