"""The token, a frozen value that keeps its secrets to itself."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, TypeAlias

from httpx_reauth._errors import keep_refresh_token
from httpx_reauth._request.packages import Answer

if TYPE_CHECKING:
    from typing_extensions import Self

# Patterns are compiled where they are first needed, not at every import.

# RFC 6749 Appendix A.12: visible ASCII. Blanks at either end would not survive in a header.
_ACCESS_TOKEN = r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?"
_UNSENDABLE = r"[\x00-\x1f\x7f\ud800-\udfff]"  # control characters, and halves of letters
_STRINGS = ("access_token", "token_type", "refresh_token", "scope")
_NEVER_NONE = frozenset({"access_token", "token_type"})
_ETERNITY = 1e300  # seconds; beyond it, sums of floats and integers overflow
LATEST = 253_402_300_799.0  # seconds since the epoch: the end of the year 9999, where the calendar ends
NO_ACCESS_TOKEN = "N_A"  # the type of what is issued and is for no header (RFC 8693 section 2.2.1)
_SCHEME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_SCHEME_IN_FRONT = r"(?i:authorization:\s*)?(?i:bearer|basic|dpop|mac|token)\s+\S"
_LIFETIME = r".*(?:_(?:in|at|on)|[a-z0-9](?:In|At|On))"  # the name of a further field that says when something ends


class Unpicklable:
    """The base of every value that holds a secret: it can be copied, but refuses to be pickled."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds secrets and refuses to be pickled. "
            "Give the other process a storage, or make the object there."
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _ReadOnlyDict(dict[str, Any]):
    """A dict, so that `dataclasses.asdict` and `json.dumps` take it, which cannot be changed."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("A token is frozen, its extra fields too. Use dataclasses.replace(token, extra=...).")

    def __deepcopy__(self, memo: dict[int, Any]) -> _ReadOnlyDict:
        return _ReadOnlyDict(deepcopy(dict(self), memo))

    if not TYPE_CHECKING:  # pragma: no branch - to a type checker, `extra` is a Mapping anyway
        __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


_NO_EXTRA = _ReadOnlyDict()  # shared: most tokens have no extra field, and there may be 100,000 tokens


@dataclass(frozen=True, slots=True, repr=False)
class Token(Unpicklable):
    """An access token, what renews it, and how long it lives (RFC 6749 §5.1).

    Attributes:
        access_token: what goes into the header; empty means "only a refresh token so far".
        refresh_token: what renews it (RFC 6749 §6), if anything does.
        expires_in: its whole lifetime in seconds, if known. Zero or a negative number stays what it is.
        expires_at: the end of its life in seconds since the epoch, if known.
        token_type: the scheme in front of it in the `Authorization` header (RFC 6749 §7.1).
        scope: the scopes it was granted, separated by blanks (RFC 6749 §3.3), if known.
        extra: the further fields of the answer, e.g. `id_token`.

    Raises:
        ValueError: the access token, the refresh token or the type cannot be sent: a line break, a control
            character, a letter outside of ASCII, blanks at an end; the access token has its scheme in front; or a time
            is not a number of seconds.
        TypeError: a field is of another type.
    """

    access_token: str = ""
    refresh_token: str | None = field(default=None, kw_only=True)
    expires_in: float | None = field(default=None, kw_only=True)
    expires_at: float | None = field(default=None, kw_only=True)
    token_type: str = field(default="Bearer", kw_only=True)
    scope: str | None = field(default=None, kw_only=True)
    extra: Mapping[str, Any] = field(default_factory=_ReadOnlyDict, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        try:
            self._check()
        except (TypeError, ValueError) as error:
            if isinstance(self.refresh_token, str) and not re.search(_UNSENDABLE, self.refresh_token):
                keep_refresh_token(error, self.refresh_token)  # made in a refresh: the last one may be spent for it
            raise
        object.__setattr__(self, "extra", _ReadOnlyDict(self.extra) if self.extra else _NO_EXTRA)

    def _check(self) -> None:
        for name in _STRINGS:
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name in _NEVER_NONE):
                or_none = "" if name in _NEVER_NONE else " or None"
                raise TypeError(f"{name} must be a string{or_none}, not {type(value).__name__}.")
        for name in ("expires_in", "expires_at"):
            if (seconds := getattr(self, name)) is not None:
                _check_seconds(name, seconds)
        if self.expires_at is not None and self.expires_at > LATEST:
            raise ValueError(
                "expires_at is later than the year 9999. Are these milliseconds? Divide them by 1000: expires_at is in "
                "seconds since the epoch."
            )
        if self.access_token and not re.fullmatch(_ACCESS_TOKEN, self.access_token):
            raise ValueError(
                "This access token cannot be sent: it has a line break, a control character, a letter outside "
                "of ASCII or a blank at an end (RFC 6749 A.12). Was it read from a file without .strip()?"
            )
        if re.match(_SCHEME_IN_FRONT, self.access_token):
            raise ValueError(
                "This access token begins with a scheme, as in 'Bearer abc'. Give the token alone, Token('abc'): the "
                "scheme is token_type, which is Bearer unless you say another one."
            )
        if self.refresh_token and re.search(_UNSENDABLE, self.refresh_token):
            raise ValueError("This refresh token has a line break or a control character (RFC 6749 A.17).")
        if not re.fullmatch(_SCHEME, self.token_type):
            raise ValueError("token_type must be one word (RFC 9110 section 11.1); for anything else use authorize=.")

    @classmethod
    def from_response(cls, response: Answer | Mapping[str, Any], /) -> Token:
        """The token in a token endpoint's answer: an `httpx.Response` that has been read, or its fields.

        Forgiving where servers differ: a form instead of JSON; `expires_in` as a string, a float, null or
        garbage; `expires_at` or `expires_on` instead of it, as a number, a date or ISO 8601; a list of scopes; any name
        for the type of a bearer token. It reads no clock: the lifetime is counted by the `Reauth` that publishes the
        token.

        A refresh token that comes with an answer that is an error is not lost: where this is called in a refresh, it
        replaces the one that was spent.

        Raises:
            SignInRequired: the answer is `invalid_grant` (RFC 6749 section 5.2) or says the same in other words.
            RefreshError: it is any other error, no token, neither JSON nor a form, a token of a type that is known to
                be another one than Bearer (mac, dpop, pop, N_A; RFC 6749 section 7.1), or one that cannot be put into
                a header.
            TypeError: it is no answer: a request that was not awaited, for example.
        """
        from httpx_reauth.oauth.response import token_fields, unusable

        fields = token_fields(response)
        try:
            return cls(**fields)
        except ValueError as error:
            raise unusable(error, response) from None

    def renewed(self, answer: Token, now: float) -> Token:
        """`answer` as the successor of this token.

        What the answer leaves out is carried forward: the refresh token (RFC 6749 section 6), the scope (section 5.1)
        and the further fields, but for those that say when something ends.
        Whichever of `expires_in` and `expires_at` is missing is filled in, counted from `now`.

        Args:
            answer: what the refresh brought.
            now: when the refresh started, in seconds since the epoch.

        Example: refreshed at 1000, an answer with `expires_in=3600` gets `expires_at=4600`.
        """
        lifetime, end = answer.expires_in, answer.expires_at
        if end is None and lifetime is not None:
            end = end_of(lifetime, now)
        elif lifetime is None and end is not None:
            lifetime = end - now
        extra = answer.extra
        if self.extra and self is not answer:
            kept = {name: value for name, value in self.extra.items() if not re.fullmatch(_LIFETIME, name)}
            extra = {**kept, **extra}
        return replace(
            answer,
            refresh_token=answer.refresh_token or self.refresh_token,
            scope=self.scope if answer.scope is None else answer.scope,
            expires_in=lifetime,
            expires_at=end,
            extra=extra,
        )

    def __repr__(self) -> str:
        """Everything but the secrets."""
        access_token = "'***'" if self.access_token else "''"
        refresh_token = "'***'" if self.refresh_token else self.refresh_token
        return (
            f"Token({access_token}, refresh_token={refresh_token}, expires_in={self.expires_in}, "
            f"expires_at={self.expires_at}, token_type={self.token_type!r}, scope={self.scope!r}, "
            f"extra=<{len(self.extra)} fields>)"
        )


def end_of(lifetime: float, now: float) -> float:
    """When a token ends that lives for `lifetime` seconds from `now`, in seconds since the epoch."""
    return min(now + lifetime, LATEST)


Refresh: TypeAlias = Callable[[Token], Awaitable[Token] | Token]  # gets the last token, answers with the next


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}.")
    if value != value or abs(value) > _ETERNITY:  # noqa: PLR0124 - NaN is what differs from itself
        raise ValueError(f"{name} must be a number of seconds; infinity is None.")
