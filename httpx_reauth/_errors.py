"""What can go wrong, as values that many waiters can share.

One refresh fails once, but every request that waited for it raises: the shared error stays in the
store, and each waiter raises a twin of it (`own_copy`), because one exception object raised in many
tasks collects all their tracebacks.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast
from urllib.parse import quote_plus

_E = TypeVar("_E", bound="ReauthError")
_S = TypeVar("_S")

_HIDDEN = "***"
_SAID_AT_MOST = 300  # characters of a server's words that an error keeps; its message may be twice as long
_SHORT = 8  # characters; a shorter secret is looked for as a word of its own
_BEGINNING = 16  # characters of a secret that give it away
_MAX_RETRY_AFTER = 86_400.0  # seconds; a day. A server that says more is more likely wrong than that patient


class ReauthError(Exception):
    """The base of every error of this library.

    Attributes:
        error: OAuth's error code, e.g. `invalid_client` (RFC 6749 §5.2), or None.
        error_description: the server's own words for it, printable and shortened, or None.
        error_uri: the server's page about it, or None.
    """

    # With defaults, for a user's subclass whose __init__ does not call this one.
    error: str | None = None
    error_description: str | None = None
    error_uri: str | None = None
    _refresh_token: str | None = None  # one that came with an answer of no other use; the flight takes it off

    def __init__(
        self,
        message: str = "",
        *,
        error: str | None = None,
        error_description: str | None = None,
        error_uri: str | None = None,
    ) -> None:
        super().__init__(message)
        self.error = error
        self.error_description = error_description
        self.error_uri = error_uri

    def __reduce__(self) -> tuple[Any, ...]:
        # A request carries the token in its header: it does not travel with the error.
        state = {name: value for name, value in self.__dict__.items() if name != "_request"}
        return _rebuild, (*_PARTS.get(type(self), (type(self), None)), self.args, state)


class RefreshError(ReauthError):
    """The token could not be renewed this time; a later attempt may succeed.

    Raised out of a request, it is also the client's own `TransportError` (httpx's or httpx2's), so that
    `except httpx.HTTPError` and retry helpers see it.

    Attributes:
        retry_after: seconds until the next refresh is tried: what the server asked for
            (`Retry-After`, RFC 9110 §10.2.3), else what the back-off came to; None outside of a `Reauth`.
        retry_at: the same as a date (seconds since the epoch), until whoever has a clock turns it into `retry_after`.
        status_code: the HTTP status of the token endpoint's answer, or None if there was none.
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
    ) -> None:
        super().__init__(message, error=error, error_description=error_description, error_uri=error_uri)
        self.retry_after = retry_after
        self.status_code = status_code
        self.retry_at = None

    def resolve_retry_after(self, wall: float) -> None:
        """Turn a `Retry-After` that was a date into seconds, counted from `wall` (seconds since the epoch)."""
        if self.retry_at is not None:
            self.retry_after = sane_retry_after(self.retry_at - wall)
            self.retry_at = None


class SignInRequired(ReauthError):
    """Nothing but a new sign-in helps: the refresh token is dead (RFC 6749 §5.2 `invalid_grant`), or there is none.

    It stays the answer, without a further token request, until `Reauth.sign_in` is called.
    """


class InsecureOrigin(ReauthError):
    """The token would have gone over plain http to another machine (RFC 6750 §5.3); nothing was sent."""


class StorageError(ReauthError):
    """The storage cannot be read or written: damaged, foreign, locked or out of reach."""


class StorageUnavailable(RefreshError, StorageError):
    """A refresh that needs the storage, which is damaged or out of reach: nothing was asked of the server."""


def sane_retry_after(seconds: float) -> float:
    """What a server asks for, within reason: not less than nothing, not more than a day."""
    return min(max(0.0, seconds), _MAX_RETRY_AFTER)


def printable(text: str) -> str:
    """`text`, fit for one line of a log."""
    return "".join(char if char.isprintable() else "?" for char in text)


def own_copy(error: _E) -> _E:
    """A twin of the shared `error`, for one waiter to raise: same type, words and attributes, same cause."""
    return _twin(error, type(error))


def in_request(error: ReauthError, transport_error: type[Exception], request: object) -> ReauthError:
    """What a request raises for `error`: a twin; of a `RefreshError`, one that is a `transport_error` as well."""
    if not isinstance(error, RefreshError) or isinstance(error, transport_error):
        return own_copy(error)
    twin = _twin(error, _both(type(error), transport_error))
    cast("Any", twin)._request = request
    return twin


def hide(error: BaseException, *secrets: str | None) -> None:
    """Take `secrets` out of what `error` says, should a server have echoed them; of our own errors only.

    It is shortened afterwards: the other way round, the beginning of a secret could be left at its end.
    """
    if not isinstance(error, ReauthError):
        return
    known = sorted((secret for secret in secrets if secret), key=len, reverse=True)  # one may be a part of another
    known += [printable(secret) for secret in known]
    known += [quote_plus(secret, errors="replace") for secret in known]
    error.args = tuple(_discreet(arg, known, 2 * _SAID_AT_MOST) for arg in error.args)
    error.error = _discreet(error.error, known, _SAID_AT_MOST)
    error.error_description = _discreet(error.error_description, known, _SAID_AT_MOST)
    error.error_uri = _discreet(error.error_uri, known, _SAID_AT_MOST)


def _discreet(text: _S, secrets: list[str], length: int) -> _S:
    if not isinstance(text, str):
        return text
    said: str = text
    for secret in secrets:
        if len(secret) < _SHORT:  # "r" is not hidden in "server"
            said = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _HIDDEN, said)
            continue
        said = said.replace(secret, _HIDDEN)
        beginning = said.find(secret[:_BEGINNING])
        if beginning >= 0:  # the server has cut its echo: "unknown token eyJhbGciOiJ..."
            said = said[:beginning] + _HIDDEN
    return cast("_S", said[:length])


def _twin(error: ReauthError, cls: type[_E]) -> _E:
    # By way of __new__, since a user's subclass may have an __init__ of its own.
    twin = cls.__new__(cls, *error.args)
    twin.__dict__.update(error.__dict__)
    if "__notes__" in twin.__dict__:
        twin.__dict__["__notes__"] = list(twin.__dict__["__notes__"])  # of its own: others add to theirs
    twin.__cause__ = error.__cause__ if error.__cause__ is not None else error
    return twin


# The classes made by `_both`, and what each was made of.
_MADE: dict[tuple[type[RefreshError], type[Exception]], type[RefreshError]] = {}
_PARTS: dict[type, tuple[type[ReauthError], type[Exception]]] = {}


def _both(cls: type[RefreshError], transport_error: type[Exception]) -> type[RefreshError]:
    # Of one that has been made for the other package (its client sent a refresh's own request), what it was at first.
    cls = cast("type[RefreshError]", _PARTS.get(cls, (cls, None))[0])
    made = _MADE.get((cls, transport_error))
    if made is None:
        namespace = {"__module__": cls.__module__, "__doc__": cls.__doc__}
        made = _MADE[cls, transport_error] = type(cls.__name__, (cls, transport_error), namespace)
        _PARTS[made] = (cls, transport_error)
    return made


def _rebuild(
    cls: type[ReauthError], transport_error: type[Exception] | None, args: tuple[Any, ...], state: dict[str, Any]
) -> ReauthError:
    if transport_error is not None:
        cls = _both(cast("type[RefreshError]", cls), transport_error)
        state = {**state, "_request": None}
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error
