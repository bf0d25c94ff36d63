"""The token: a frozen value that does not show its secrets."""

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

# The patterns are strings. `re` compiles each at its first use, so the import is faster.

# RFC 6749 Appendix A.12: visible ASCII. A header would lose a space at the beginning or the end of its value.
_ACCESS_TOKEN = r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?"
_UNSENDABLE = r"[\x00-\x1f\x7f\ud800-\udfff]"  # control characters and surrogates
_STRINGS = ("access_token", "token_type", "refresh_token", "scope")
_NEVER_NONE = frozenset({"access_token", "token_type"})
_ETERNITY = 1e300  # seconds; beyond it, sums of floats and integers overflow
LATEST = 253_402_300_799.0  # seconds since the epoch: the end of the year 9999, the last one of `datetime`
NO_ACCESS_TOKEN = "N_A"  # the type of an issued token that is not an access token (RFC 8693 section 2.2.1)
_SCHEME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_SCHEME_IN_FRONT = r"(?i:authorization:\s*)?(?i:bearer|basic|dpop|mac|token)\s+\S"
_LIFETIME = r".*(?:_(?:in|at|on)|[a-z0-9](?:In|At|On))"  # the names of extra fields with a lifetime or an end


class Unpicklable:
    """The base class of all values with a secret. They can be copied. To pickle them raises a `TypeError`."""

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
    """A read-only dict. It is a dict, since `dataclasses.asdict` and `json.dumps` do not accept every mapping."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("A token is frozen, its extra fields too. Use dataclasses.replace(token, extra=...).")

    def __deepcopy__(self, memo: dict[int, Any]) -> _ReadOnlyDict:
        return _ReadOnlyDict(deepcopy(dict(self), memo))

    if not TYPE_CHECKING:  # pragma: no branch - to a type checker, `extra` is a Mapping anyway
        __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


_NO_EXTRA = _ReadOnlyDict()  # one object for all tokens without extra fields, since there may be 100,000 of them


@dataclass(frozen=True, slots=True, repr=False)
class Token(Unpicklable):
    """An access token, with its refresh token and its lifetime (RFC 6749 §5.1).

    Attributes:
        access_token: the access token, for the header. Empty: the token has only a refresh token so far.
        refresh_token: the refresh token, which renews the access token (RFC 6749 §6); None if there is none.
        expires_in: the whole lifetime in seconds; None if unknown. Zero or a negative number is not changed.
        expires_at: the time when the access token expires, in seconds since the epoch; None if unknown.
        token_type: the scheme in front of the access token in the header `Authorization` (RFC 6749 §7.1).
        scope: the granted scopes, separated by spaces (RFC 6749 §3.3); None if unknown.
        extra: all other fields of the server's response, e.g. `id_token`.

    Raises:
        ValueError: the access token, the refresh token or the type cannot be sent: it has a line break, a control
            character, a letter outside of ASCII, or a space at its beginning or end. Or the access token begins with a
            scheme. Or a time is not a finite number of seconds, or `expires_at` is later than the year 9999.
        TypeError: a field has the wrong type.
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
                keep_refresh_token(error, self.refresh_token)  # in a refresh, it replaces a spent one
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
            raise ValueError(
                "This refresh token cannot be sent: it has a line break or a control character (RFC 6749 A.17). Was it "
                "read from a file without .strip()?"
            )
        if not re.fullmatch(_SCHEME, self.token_type):
            raise ValueError("token_type must be one word (RFC 9110 section 11.1); for anything else use authorize=.")

    @classmethod
    def from_response(cls, response: Answer | Mapping[str, Any], /) -> Token:
        """Return the token in the response of a token endpoint.

        Servers differ from RFC 6749, so this function also accepts:

        - a form instead of JSON;
        - `expires_in` as a string, a float, null or an unreadable value;
        - `expires_at` or `expires_on` instead of `expires_in`, as a number, a date or ISO 8601;
        - a list of scopes;
        - any name for the type of a bearer token.

        This function reads no clock: the `Reauth` that publishes the token counts the lifetime.

        An error response may contain a refresh token. If this function is called in a refresh, that refresh token
        replaces the one that was spent.

        Args:
            response: an `httpx.Response` whose body has been read, or a mapping with the fields of the response.

        Raises:
            SignInRequired: the error is `invalid_grant` (RFC 6749 section 5.2), or the same error in other words.
            RefreshError: the response is a different error, has no token, or is neither JSON nor a form. Or the token's
                type is known not to be Bearer (mac, dpop, pop, N_A; RFC 6749 section 7.1). Or the token cannot be put
                into a header.
            TypeError: `response` is not a response, for example a request that was not awaited.
        """
        from httpx_reauth.oauth.response import token_fields, unusable

        fields = token_fields(response)
        try:
            return cls(**fields)
        except ValueError as error:
            raise unusable(error, response) from None

    def renewed(self, answer: Token, now: float) -> Token:
        """Return the next token: `answer`, with its missing fields filled in.

        A missing refresh token (RFC 6749 section 6), scope (section 5.1) or extra field is copied from this token. An
        extra field with a lifetime or an end is not copied. A missing `expires_in` or `expires_at` is computed from
        `now`.

        Args:
            answer: the token that the refresh function returned.
            now: the time when the refresh began, in seconds since the epoch.

        Example: for a refresh that began at 1000, an answer with `expires_in=3600` gets `expires_at=4600`.
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
        """All fields except the secrets."""
        access_token = "'***'" if self.access_token else "''"
        refresh_token = "'***'" if self.refresh_token else self.refresh_token
        return (
            f"Token({access_token}, refresh_token={refresh_token}, expires_in={self.expires_in}, "
            f"expires_at={self.expires_at}, token_type={self.token_type!r}, scope={self.scope!r}, "
            f"extra=<{len(self.extra)} fields>)"
        )


def end_of(lifetime: float, now: float) -> float:
    """Return the end of a lifetime of `lifetime` seconds that begins at `now` (seconds since the epoch)."""
    return min(now + lifetime, LATEST)


def lost_scopes(asked: str, token: Token) -> list[str]:
    """Return the scopes in `asked` that the server has not granted, as far as its response `token` shows.

    Some servers write the granted scopes in their own way:

    1. GitHub separates scopes by commas.
    2. Google writes `email` as `https://www.googleapis.com/auth/userinfo.email`.
    3. Entra never names `offline_access`; the refresh token shows that it was granted. In place of
       `https://.../.default`, Entra names the scopes that this scope includes.
    """
    granted = re.split(r"[\s,]+", token.scope or "")

    def is_shown(scope: str) -> bool:
        if scope == "offline_access" and token.refresh_token is not None:
            return True
        if scope.endswith("/.default") and any(granted):
            return True
        return any(one == scope or ("://" in one and one.endswith((f"/{scope}", f".{scope}"))) for one in granted)

    return sorted(scope for scope in set(re.split(r"[\s,]+", asked)) if scope and not is_shown(scope))


Refresh: TypeAlias = Callable[[Token], Awaitable[Token] | Token]  # gets the last token, returns the next one


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}.")
    if value != value or abs(value) > _ETERNITY:  # noqa: PLR0124 - only NaN differs from itself
        raise ValueError(f"{name} must be a number of seconds; infinity is None.")
