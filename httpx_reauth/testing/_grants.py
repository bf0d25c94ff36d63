"""The tokens that a server has given out: rotation, reuse detection, expiry and revocation, without any I/O."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field


class OAuthError(Exception):
    """An error answer of the token endpoint (RFC 6749 §5.2)."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


@dataclass(slots=True)
class Access:
    """An access token as its server knows it; `ends` on the server's clock, None for never."""

    family: Family
    ends: float | None
    revoked: bool = False


@dataclass(slots=True)
class Family:
    """Everything that descends from one sign-in (RFC 9700 §4.14.2)."""

    client_id: str | None
    scope: str | None
    refresh_tokens: set[str] = field(default_factory=set[str])  # good ones; with rotation one at most
    access_tokens: list[Access] = field(default_factory=list["Access"])
    revoked: bool = False


class Grants:
    """Who holds which token. Not thread-safe: its server holds a lock."""

    def __init__(self) -> None:
        # No token of one server is any good at another.
        self._mark = secrets.token_hex(4)
        self._access: dict[str, Access] = {}
        self._families: dict[str, Family] = {}  # by each refresh token ever given out
        self._count = 0

    def new_access_token(self, family: Family, ends: float | None) -> str:
        """A new access token, good until `ends`."""
        self._count += 1
        token = f"access-{self._count}-{self._mark}"
        self._access[token] = access = Access(family, ends)
        family.access_tokens.append(access)
        return token

    def new_refresh_token(self, family: Family) -> str:
        """A new refresh token of `family`."""
        self._count += 1
        token = f"refresh-{self._count}-{self._mark}"
        self._families[token] = family
        family.refresh_tokens.add(token)
        return token

    def family_of(self, refresh_token: str, client_id: str | None) -> tuple[Family, bool]:
        """The family of a refresh token, and whether the token had been used up before.

        Raises:
            OAuthError: `invalid_grant`: unknown, revoked, or issued to another client (RFC 6749 §6).
        """
        family = self._families.get(refresh_token)
        if family is None:
            raise OAuthError("invalid_grant", "The refresh token is unknown.")
        if family.client_id is not None and family.client_id != client_id:
            raise OAuthError("invalid_grant", "The refresh token was issued to another client.")
        if family.revoked:
            raise OAuthError("invalid_grant", "The refresh token has been revoked.")
        return family, refresh_token not in family.refresh_tokens

    def rotate(self, family: Family, refresh_token: str) -> str:
        """Use up `refresh_token`, and get its successor."""
        family.refresh_tokens.remove(refresh_token)
        return self.new_refresh_token(family)

    def flaw(self, access_token: str, now: float) -> str | None:
        """What is wrong with an access token, or None."""
        access = self._access.get(access_token)
        if access is None:
            return "The access token is unknown."
        if access.revoked:
            return "The access token has been revoked."
        if access.ends is not None and now >= access.ends:
            return "The access token expired."
        return None

    def is_good(self, token: str, now: float) -> bool:
        """Is `token` an access token that is served, or a refresh token that can be used?"""
        family = self._families.get(token)
        if family is not None:
            return token in family.refresh_tokens and not family.revoked
        return self.flaw(token, now) is None

    def holder_of(self, token: str) -> Family | None:
        """The family of an access or a refresh token; None if it is unknown."""
        access = self._access.get(token)
        return self._families.get(token) if access is None else access.family

    def revoke(self, token: str) -> bool:
        """End `token`; with a refresh token, its family (RFC 7009 section 2.1). Whether that ended anything."""
        family, access = self._families.get(token), self._access.get(token)
        if family is not None and not family.revoked:
            self.revoke_family(family)
            return True
        if access is not None and not access.revoked:
            access.revoked = True
            return True
        return False

    def revoke_family(self, family: Family) -> None:
        """End every token of `family`, access tokens included."""
        family.revoked = True
        self.revoke_access(family)

    def revoke_access(self, family: Family) -> None:
        """End the access tokens of `family` given out so far."""
        for access in family.access_tokens:
            access.revoked = True
        family.access_tokens.clear()

    def revoke_all_access(self) -> None:
        """End every access token given out so far."""
        for access in self._access.values():
            access.revoked = True

    def expire_all_access(self, now: float) -> None:
        """Let every access token given out so far have ended by `now`."""
        for access in self._access.values():
            access.ends = now if access.ends is None else min(access.ends, now)

    def revoke_all_refresh(self) -> None:
        """End every refresh token given out so far; access tokens live on."""
        for family in self._families.values():
            family.revoked = True
