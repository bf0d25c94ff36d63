"""Reads the challenges of a 401: its `WWW-Authenticate` fields (RFC 9110 section 11.6.1).

    WWW-Authenticate: Basic realm="a, b", Bearer realm="api", error="insufficient_scope"

1. A field may have several challenges, and a response may have several fields. All fields together are one list.
2. A challenge is a scheme, followed by one token68 (`Negotiate oYG2...==`) or by parameters. A comma separates both
   parameters and challenges. So the form decides: `name=value` is a parameter of the challenge before it, and a word
   alone is the next scheme.
3. A value is a word or a quoted string. In a quoted string, a comma separates nothing. A backslash makes the next
   character an ordinary one.
4. Text that fits no rule is skipped. A badly written challenge must not make a request fail.

Three errors say that the server would refuse a new token as well. So the token is not renewed:

- `insufficient_scope`: the token has too few rights (RFC 6750 section 3.1);
- `insufficient_user_authentication`: the user must sign in again, or in a stronger way (RFC 9470 section 3);
- `use_dpop_nonce`: the request's DPoP proof must have the server's nonce (RFC 9449 section 9).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # a token, RFC 9110 section 5.6.2
_TOKEN68 = r"[0-9A-Za-z._~+/-]+=*"  # RFC 9110 section 11.2

# The text after a word decides between the alternatives, so the pattern reads each character only a few times.
_ITEM = rf"""(?xs)
    [\s,;]*
    (?:
        (?P<name>{_WORD}) \s*=\s* (?: "(?P<quoted>(?:[^"\\]|\\.)*)\\?(?:"|$) | (?P<plain>[^\s,;="][^\s,;"]*) )
      | (?P<scheme>{_WORD}) (?=[\s,]|$) (?: [ \t]+ (?P<token68>{_TOKEN68}) (?=\s*(?:,|$)) )?
      | {_WORD}
      | .
    )
"""

_NOT_ABOUT_THE_TOKEN = frozenset({"insufficient_scope", "insufficient_user_authentication", "use_dpop_nonce"})


class Challenge(NamedTuple):
    """One challenge.

    Attributes:
        scheme: the scheme in lower case, e.g. `bearer`; empty if the server names none.
        parameters: the parameters, by their names in lower case. If a name occurs twice, the first value counts.
        token68: the value in the place of parameters, e.g. in `Negotiate oYG2...==`.
    """

    scheme: str
    parameters: dict[str, str]
    token68: str | None = None


def parse_challenges(fields: Iterable[str]) -> list[Challenge]:
    """The challenges in the `WWW-Authenticate` fields of one response, in their order."""
    challenges: list[Challenge] = []
    for field in fields:
        for item in re.finditer(_ITEM, field):
            name, scheme = item["name"], item["scheme"]
            if scheme is not None:
                challenges.append(Challenge(scheme.lower(), {}, item["token68"]))
            elif name is not None:
                quoted = item["quoted"]
                value = item["plain"] if quoted is None else re.sub(r"(?s)\\(.)", r"\1", quoted)
                if not challenges:
                    challenges.append(Challenge("", {}))
                challenges[-1].parameters.setdefault(name.lower(), value)
    return challenges


def would_refuse_another(fields: Iterable[str], token_type: str) -> bool:
    """Do these `WWW-Authenticate` fields say that the server would refuse a new token as well?

    Args:
        fields: the fields of one response.
        token_type: the scheme with which our token was sent. If a challenge of this scheme has an error, the other
            schemes do not count. For a `Bearer` token, `DPoP error="use_dpop_nonce"` beside
            `Bearer error="invalid_token"` says nothing.
    """
    errors = [(one.scheme, one.parameters["error"]) for one in parse_challenges(fields) if "error" in one.parameters]
    ours = [error for error in errors if error[0] == token_type.lower()]
    return any(error in _NOT_ABOUT_THE_TOKEN for _, error in ours or errors)
