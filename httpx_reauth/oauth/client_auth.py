"""How a client proves who it is to a token endpoint (RFC 6749 section 2.3).

A token request carries the method, never its result: the driver asks for a `Proof` before each attempt, since a secret
may have been replaced meanwhile, and an assertion may be used once.

Basic has two spellings. RFC 6749 section 2.3.1 wants id and secret form-encoded before they are joined, and some
servers do not decode them. So, with `basic_encoding="auto"`:

1. The form-encoded spelling is sent first.
2. If the server says `invalid_client` in JSON to it and the plain spelling differs, that is sent once, in the same
   attempt.
3. The spelling with which a token came is remembered, and is the only one sent from then on.
4. If both were refused, the secret is wrong. Only the form-encoded spelling is sent from then on, until the secret is
   another one: twice as many failures could lock an account.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Literal, TypeAlias, cast
from urllib.parse import quote, quote_plus

from httpx_reauth._errors import ReauthError, RefreshError
from httpx_reauth._token import Discreet

ClientAuth: TypeAlias = Literal["client_secret_basic", "client_secret_post", "none"]
BasicEncoding: TypeAlias = Literal["auto", "form", "plain"]
Secret: TypeAlias = "str | Callable[[], str] | None"

_UNSENDABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # the last: bytes of the environment that are no UTF-8


@dataclass(frozen=True, slots=True, repr=False)
class Proof(Discreet):
    """What one attempt sends to prove who the client is.

    Attributes:
        fields: fields of the form.
        headers: headers, by their lower-case names.
        secrets: what of it no error may repeat.
        spelling: of Basic, where the two spellings differ.
        otherwise: the other spelling, if it may be sent once the server has said `invalid_client` to this.
    """

    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: tuple[str, ...] = ()
    spelling: Literal["form", "plain"] | None = None
    otherwise: Proof | None = None


class BasicMemory:
    """What a grant has learned of how the server reads Basic.

    Attributes:
        works: the spelling with which a token came.
        refused: a hash of the id and secret that were refused in both spellings.
    """

    __slots__ = ("refused", "works")

    def __init__(self) -> None:
        self.works: Literal["form", "plain"] | None = None
        self.refused: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ClientAuthentication(Discreet):
    """One client, and the method by which it proves who it is.

    Attributes:
        client_id: its name at the server; None where the request needs no client.
        method: how it authenticates.
        client_secret: its password, if the method needs one, or a function that is asked for it at each attempt.
        basic_encoding: how id and secret are written for Basic.
        memory: what has been learned of the server; the requests of one grant share it.
    """

    client_id: str | None
    method: ClientAuth = "none"
    client_secret: Secret = None
    basic_encoding: BasicEncoding = "auto"
    memory: BasicMemory = field(default_factory=BasicMemory, compare=False)

    def prove(self) -> Proof:
        """What the next attempt sends.

        Raises:
            RefreshError: the function that is asked for the secret failed, or answered with something else.
        """
        if self.client_id is None:
            return Proof()
        if self.client_secret is None or self.method == "none":
            return Proof({"client_id": self.client_id})
        secret = self.client_secret
        if not isinstance(secret, str):
            secret = ask_function("client_secret", secret)
        if self.method == "client_secret_post":
            fields = {"client_id": self.client_id, "client_secret": secret}
            return Proof(fields, secrets=tuple(in_every_spelling([secret])))
        return self._basic(self.client_id, secret)

    def _basic(self, client_id: str, client_secret: str) -> Proof:
        encoded, as_it_is = basic_credentials(client_id, client_secret), _joined(client_id, client_secret)
        secrets = (*in_every_spelling([client_secret]), encoded, as_it_is)
        if encoded == as_it_is:
            return Proof(headers={"authorization": f"Basic {encoded}"}, secrets=secrets)
        plain = Proof(headers={"authorization": f"Basic {as_it_is}"}, secrets=secrets, spelling="plain")
        known = self.memory.works if self.basic_encoding == "auto" else self.basic_encoding
        if known == "plain":
            return plain
        is_open = known is None and ":" not in client_id  # which no server could tell from the colon that follows it
        is_open = is_open and self.memory.refused != hash((client_id, client_secret))
        headers = {"authorization": f"Basic {encoded}"}
        return Proof(headers=headers, secrets=secrets, spelling="form", otherwise=plain if is_open else None)

    def accepted(self, proof: Proof) -> None:
        """A token came with `proof`."""
        if self.basic_encoding == "auto" and proof.spelling is not None:
            self.memory.works = proof.spelling

    def refused(self, proof: Proof) -> None:
        """The server said `invalid_client` to `proof`, and to what it named as `otherwise`."""
        self.memory.refused = hash((self.client_id, proof.secrets[0]))


def basic_credentials(client_id: str, client_secret: str) -> str:
    """What follows `Basic `, with id and secret form-encoded first (RFC 6749 section 2.3.1)."""
    # A blank as %20, not as a plus: who decodes a form reads both, and some servers undo percent signs alone.
    return _joined(quote(client_id, safe=""), quote(client_secret, safe=""))


def _joined(client_id: str, client_secret: str) -> str:
    return base64.b64encode(f"{client_id}:{client_secret}".encode()).decode("ascii")


def check_text(name: str, value: str) -> None:
    """Refuse what cannot be sent as a client id or secret (RFC 6749 A.1, A.2).

    Raises:
        ValueError: it has a control character, or a letter that is half of one.
    """
    if _UNSENDABLE.search(value):
        raise ValueError(
            f"The {name} has a line break or another character that cannot be sent (RFC 6749 A.1, A.2). "
            "Was it read from a file without .strip()?"
        )


def check_function(name: str, function: object, what: str) -> None:
    """Refuse what is no plain function.

    Raises:
        TypeError: `function`, the setting `name`, cannot be called, or is a coroutine function.
    """
    if not callable(function):
        raise TypeError(f"{name} must be {what}, not {type(function).__name__}.")
    if iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise TypeError(f"{name} must be a plain function: a grant runs in a worker thread, where it may block.")


def ask_function(name: str, function: Callable[[], str]) -> str:
    """What `function`, given as the setting `name`, answers.

    Raises:
        RefreshError: it failed, or its answer is no string that can be sent.
    """
    try:
        answer = cast("object", function())
    except ReauthError:
        raise
    except Exception as error:
        raise RefreshError(
            f"The function given as {name} raised {type(error).__name__}, so nothing was sent. It is asked again after "
            "a back-off."
        ) from error
    if not isinstance(answer, str) or not answer:
        given = "an empty string" if isinstance(answer, str) else type(answer).__name__
        raise RefreshError(f"The function given as {name} returned {given} in place of a string: nothing was sent.")
    try:
        check_text(name, answer)
    except ValueError as error:
        raise RefreshError(f"{error} Nothing was sent.") from None
    return answer


def in_every_spelling(secrets: Iterable[str]) -> list[str]:
    """`secrets`, and how they look in a URL and in a form."""
    return [spelling for secret in secrets for spelling in (secret, quote(secret, safe=""), quote_plus(secret))]
