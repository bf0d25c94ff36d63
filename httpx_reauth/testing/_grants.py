"""The tokens that a server has issued: rotation, reuse detection, expiry and revocation, without any I/O."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field


class OAuthError(Exception):
    """An error response of the token endpoint (RFC 6749 §5.2)."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


@dataclass(slots=True)
class Access:
    """An access token at its server. `ends` is a time of the server's clock; None: it never ends."""

    family: Family
    ends: float | None
    revoked: bool = False


@dataclass(slots=True)
class Family:
    """All tokens that come from one sign-in (RFC 9700 §4.14.2)."""

    client_id: str | None
    scope: str | None
    refresh_tokens: set[str] = field(default_factory=set[str])  # the valid ones; with rotation at most one
    access_tokens: list[Access] = field(default_factory=list["Access"])
    revoked: bool = False


class Grants:
    """The issued tokens and their families. This class is not thread-safe; the server holds a lock."""

    def __init__(self) -> None:
        # A token of one server is not valid at a different server.
        self._mark = secrets.token_hex(4)
        self._access: dict[str, Access] = {}
        self._families: dict[str, Family] = {}  # by every issued refresh token
        self._count = 0

    def new_access_token(self, family: Family, ends: float | None) -> str:
        """Return a new access token, which is valid until `ends`."""
        self._count += 1
        token = f"access-{self._count}-{self._mark}"
        self._access[token] = access = Access(family, ends)
        family.access_tokens.append(access)
        return token

    def new_refresh_token(self, family: Family) -> str:
        """Return a new refresh token of `family`."""
        self._count += 1
        token = f"refresh-{self._count}-{self._mark}"
        self._families[token] = family
        family.refresh_tokens.add(token)
        return token

    def family_of(self, refresh_token: str, client_id: str | None) -> tuple[Family, bool]:
        """Return the family of a refresh token, and whether the token has already been used.

        Raises:
            OAuthError: `invalid_grant`: the token is unknown, revoked, or issued to a different client (RFC 6749 §6).
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
        """Use up `refresh_token`, and return its successor."""
        family.refresh_tokens.remove(refresh_token)
        return self.new_refresh_token(family)

    def flaw(self, access_token: str, now: float) -> str | None:
        """Return what is wrong with an access token, or None."""
        access = self._access.get(access_token)
        if access is None:
            return "The access token is unknown."
        if access.revoked:
            return "The access token has been revoked."
        if access.ends is not None and now >= access.ends:
            return "The access token expired."
        return None

    def is_good(self, token: str, now: float) -> bool:
        """Return whether `token` is a valid access token, or a refresh token that can be used."""
        family = self._families.get(token)
        if family is not None:
            return token in family.refresh_tokens and not family.revoked
        return self.flaw(token, now) is None

    def holder_of(self, token: str) -> Family | None:
        """Return the family of an access or a refresh token, or None if the token is unknown."""
        access = self._access.get(token)
        return self._families.get(token) if access is None else access.family

    def revoke(self, token: str) -> bool:
        """Revoke `token`; for a refresh token, its family (RFC 7009 section 2.1). Return whether it was valid."""
        family, access = self._families.get(token), self._access.get(token)
        if family is not None and not family.revoked:
            self.revoke_family(family)
            return True
        if access is not None and not access.revoked:
            access.revoked = True
            return True
        return False

    def revoke_family(self, family: Family) -> None:
        """Revoke every token of `family`, also its access tokens."""
        family.revoked = True
        self.revoke_access(family)

    def revoke_access(self, family: Family) -> None:
        """Revoke the access tokens of `family` issued so far."""
        for access in family.access_tokens:
            access.revoked = True
        family.access_tokens.clear()

    def revoke_all_access(self) -> None:
        """Revoke every access token issued so far."""
        for access in self._access.values():
            access.revoked = True

    def expire_all_access(self, now: float) -> None:
        """Expire every access token issued so far, at `now`."""
        for access in self._access.values():
            access.ends = now if access.ends is None else min(access.ends, now)

    def revoke_all_refresh(self) -> None:
        """Revoke every refresh token issued so far. Access tokens stay valid."""
        for family in self._families.values():
            family.revoked = True
