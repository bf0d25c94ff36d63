"""The challenges of a refusal: what its `WWW-Authenticate` fields say (RFC 9110 section 11.6.1).

    WWW-Authenticate: Basic realm="a, b", Bearer realm="api", error="insufficient_scope"

1. Several challenges may share a field, and one answer may have several fields; all fields together are one list.
2. A challenge is a scheme, and then either one token68 (`Negotiate oYG2...==`) or parameters. A comma separates the
   parameters and separates the challenges, so what follows a comma is read by its form: `name=value` is a parameter of
   the challenge before it, a word alone is the next scheme.
3. A value is a word or a quoted string. In a quoted string a comma separates nothing, and a backslash makes the next
   character a plain one.
4. Whatever fits no rule is skipped. A server that writes its challenges badly is no reason to fail a request.

Three errors say that the token is good and that another one would be refused as well. Renewing it would be useless:

- `insufficient_scope`: the token has too few rights (RFC 6750 section 3.1);
- `insufficient_user_authentication`: the person has to sign in anew, or in a stronger way (RFC 9470 section 3);
- `use_dpop_nonce`: the server wants its nonce in the request's DPoP proof (RFC 9449 section 9).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # a token, RFC 9110 section 5.6.2
_TOKEN68 = r"[0-9A-Za-z._~+/-]+=*"  # RFC 9110 section 11.2

# The alternatives exclude one another by what follows the word, so each character is looked at a few times at most.
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
        parameters: the parameters, their names in lower case. Of one that comes twice, the first counts.
        token68: what stands in the place of parameters, e.g. in `Negotiate oYG2...==`.
    """

    scheme: str
    parameters: dict[str, str]
    token68: str | None = None


def parse_challenges(fields: Iterable[str]) -> list[Challenge]:
    """The challenges in the `WWW-Authenticate` fields of one answer, in their order."""
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
    """Do these `WWW-Authenticate` fields say that another token would be refused as well?

    Args:
        fields: the fields of one refusal.
        token_type: the scheme with which our token was sent. If a challenge of that scheme names an error, the other
            schemes do not count: `DPoP error="use_dpop_nonce"` beside `Bearer error="invalid_token"` is about others.
    """
    errors = [(one.scheme, one.parameters["error"]) for one in parse_challenges(fields) if "error" in one.parameters]
    ours = [error for error in errors if error[0] == token_type.lower()]
    return any(error in _NOT_ABOUT_THE_TOKEN for _, error in ours or errors)
