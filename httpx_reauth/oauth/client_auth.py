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
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from secrets import token_urlsafe
from types import EllipsisType, MappingProxyType
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import quote, quote_plus

from httpx_reauth._errors import ReauthError, RefreshError, SignInRequired, in_our_words, place_of
from httpx_reauth._token import Unpicklable
from httpx_reauth.oauth.frames import hides_arguments
from httpx_reauth.oauth.keys import HMAC, KeyMaterial, SharedKey, SigningKey, check_extra, is_pem

BasicEncoding: TypeAlias = Literal["auto", "form", "plain"]
Secret: TypeAlias = "str | Callable[[], str] | None"

_EARLIER = 10.0  # seconds by which an assertion begins before now: the server's clock may be behind
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_UNSENDABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # the last: bytes of the environment that are no UTF-8


class ClientSecretJWT(Unpicklable):
    """The client signs an assertion with the secret that the server knows as well (RFC 7523 section 2.2).

    Needs the extra `[jwt]`. Each attempt gets a new assertion.

    Args:
        secret: the client's secret, at least as long as the hash (RFC 7518 section 3.2), or a function that is asked
            for it at each attempt.
        alg: HS256, HS384 or HS512.
        audience: for whom the assertion is; None: the issuer where an `Issuer` is known, else the token endpoint.
        lifetime: seconds for which it is good, by the clock of the `Reauth`.

    Raises:
        ValueError: the secret is empty, or a key; `alg` is another one.
        TypeError: a setting is of another type.
        ImportError: joserfc is not installed.
    """

    __slots__ = ("_alg", "_audience", "_lifetime", "_secret")

    @hides_arguments
    def __init__(
        self,
        secret: str | Callable[[], str],
        *,
        alg: str = "HS256",
        audience: str | None = None,
        lifetime: float = 60.0,
    ) -> None:
        check_extra()
        if not isinstance(secret, str):
            check_function("secret", secret, "a string or a function that returns one")
        elif not secret:
            raise ValueError("The secret is empty. Was an environment variable not set?")
        else:
            _check_shared(secret)
        if alg not in HMAC:
            raise ValueError(
                f"A secret signs with {', '.join(HMAC)}, not with {alg!r}. A key does: PrivateKeyJWT(key)."
            )
        self._secret = secret
        self._alg = alg
        self._audience = _checked_audience(audience)
        self._lifetime = checked_seconds("lifetime", lifetime)

    def assertion(self, client: ClientIdentity, now: float) -> str:
        """A new one, at `now` (seconds since the epoch)."""
        secret = self._secret
        if not isinstance(secret, str):
            secret = ask_function("secret", secret)
        audience, typ = client.audience_and_typ(self._audience)
        claims = {"iss": client.client_id, "sub": client.client_id, "aud": audience, **validity(now, self._lifetime)}
        return SharedKey(secret.encode(), self._alg).sign(claims, typ=typ)

    def __repr__(self) -> str:
        """Without the secret."""
        return f"ClientSecretJWT(alg={self._alg!r}, audience={self._audience!r}, lifetime={self._lifetime!r})"


class PrivateKeyJWT(Unpicklable):
    """The client signs an assertion with a private key whose public half the server knows (RFC 7523 section 2.2).

    Needs the extra `[jwt]`. Each attempt gets a new assertion, and so a new `jti`.

    Args:
        key: PEM (text or bytes), a JWK (a mapping), or the `Path` of a file with one of these, which is read again
            when it has changed. A certificate in the PEM goes along as `x5t#S256`.
        kid: the key's name at the server.
        alg: the algorithm; None: RS256, ES256, ES384, ES512 or EdDSA, as the key is. PS256 on request.
        audience: for whom the assertion is; None: the issuer where an `Issuer` is known, else the token endpoint.
        lifetime: seconds for which it is good, by the clock of the `Reauth`.
        claims: further claims; they win over `iss`, `sub` and `aud`.
        headers: further headers, e.g. `x5c`.
        typ: the header `typ`; `...`: `client-authentication+jwt` if the audience is the issuer, else `JWT`; None: none.

    Raises:
        ValueError: the key cannot sign that: it is public, encrypted, of another kind; its certificate has expired.
        TypeError: a setting is of another type.
        OSError: the file cannot be read.
        ImportError: joserfc is not installed.

    Example:
        key = PrivateKeyJWT(Path("key.pem"), kid="1")
        grant = ClientCredentialsGrant(Issuer("https://id.example.com"), "reports", client_auth=key)
    """

    __slots__ = ("_audience", "_claims", "_key", "_lifetime", "_typ")

    @hides_arguments
    def __init__(
        self,
        key: KeyMaterial,
        *,
        kid: str | None = None,
        alg: str | None = None,
        audience: str | None = None,
        lifetime: float = 60.0,
        claims: Mapping[str, Any] = MappingProxyType({}),
        headers: Mapping[str, Any] = MappingProxyType({}),
        typ: str | EllipsisType | None = ...,
    ) -> None:
        self._key = SigningKey(key, alg=alg, kid=kid, headers=headers)
        self._audience = _checked_audience(audience)
        self._lifetime = checked_seconds("lifetime", lifetime)
        self._claims = checked_claims(claims)
        self._typ = typ

    def assertion(self, client: ClientIdentity, now: float) -> str:
        """A new one, at `now` (seconds since the epoch)."""
        audience, typ = client.audience_and_typ(self._audience)
        names = {"iss": client.client_id, "sub": client.client_id, "aud": audience}
        claims = {**names, **self._claims, **validity(now, self._lifetime)}
        return self._key.sign(claims, typ=typ if isinstance(self._typ, EllipsisType) else self._typ)

    def __repr__(self) -> str:
        """Without the key."""
        return f"PrivateKeyJWT({self._key!r}, audience={self._audience!r}, lifetime={self._lifetime!r})"


class ClientAssertion(Unpicklable):
    """The client's assertion comes from a function: workload identity, a vault, a KMS (RFC 7521 section 4.2).

    Args:
        source: a plain function that returns the assertion; it is asked for each attempt.

    Raises:
        TypeError: it is none.

    Example: `ClientAssertion(FileIdentity("/var/run/secrets/tokens/id"))`
    """

    __slots__ = ("_source",)

    def __init__(self, source: Callable[[], str]) -> None:
        check_function("source", source, "a function that returns the assertion")
        self._source = source

    def assertion(self, client: ClientIdentity, now: float) -> str:  # noqa: ARG002 - those of the others
        """What the function answers."""
        return ask_function("source", self._source)

    def __repr__(self) -> str:
        """Where it comes from."""
        source = getattr(self._source, "__qualname__", None) or type(self._source).__qualname__
        return f"ClientAssertion({source})"


class TLSClientAuth(Unpicklable):
    """The client proves who it is by the TLS certificate of `client=` (RFC 8705), and says its id alone.

    With an `Issuer`, the server's `mtls_endpoint_aliases` are used where it has them (RFC 8705 section 5).

    Example:
        context = ssl.create_default_context()
        context.load_cert_chain("client.pem")
        client = httpx.Client(verify=context)
        grant = ClientCredentialsGrant(issuer, "reports", client_auth=TLSClientAuth(), client=client)
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """There are no settings."""
        return "TLSClientAuth()"


Assertion: TypeAlias = ClientSecretJWT | PrivateKeyJWT | ClientAssertion
ClientAuth: TypeAlias = Literal["client_secret_basic", "client_secret_post", "none"] | Assertion | TLSClientAuth

_BY_NAME = ("client_secret_basic", "client_secret_post", "none")
_OBJECTS = (ClientSecretJWT, PrivateKeyJWT, ClientAssertion, TLSClientAuth)


def check_client_auth(method: object) -> None:
    """Refuse what is no method of client authentication.

    Raises:
        ValueError, TypeError: it is none; the message says which there are.
    """
    if isinstance(method, _OBJECTS) or method in _BY_NAME:
        return
    if isinstance(method, type) and method in cast("tuple[type, ...]", _OBJECTS):
        name = method.__name__
        raise TypeError(f"client_auth is the class {name}. Make one of it: client_auth={name}(...).")
    names = ", ".join(one.__name__ for one in _OBJECTS)
    raise ValueError(f"client_auth must be one of {', '.join(_BY_NAME)}, or one of these objects: {names}.")


def validity(now: float, lifetime: float) -> dict[str, Any]:
    """The claims that say since and until when an assertion is good, and that it is a new one (RFC 7523 section 3)."""
    return {"iat": int(now - _EARLIER), "exp": math.ceil(now + lifetime), "jti": token_urlsafe(24)}


def checked_seconds(name: str, value: object) -> float:
    """The setting `name`, if it is a number of seconds above 0.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}.")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0.")
    return value


def checked_claims(claims: object) -> dict[str, Any]:
    """`claims`, if they leave alone what is different each time.

    Raises:
        TypeError, ValueError: they are no mapping, are none in JSON, or hold `iat`, `exp` or `jti`.
    """
    if not isinstance(claims, Mapping):
        raise TypeError(f"claims must be a mapping, not {type(claims).__name__}.")
    given = cast("Mapping[str, Any]", claims)
    taken = sorted({"iat", "exp", "jti"}.intersection(given))
    if taken:
        raise ValueError(f"claims must not hold {', '.join(taken)}: that is new for each assertion. Use lifetime=.")
    try:
        json.dumps(dict(given))
    except (TypeError, ValueError):
        raise TypeError("claims must be what JSON can say: text, numbers, lists and mappings of them.") from None
    return dict(given)


def _checked_audience(audience: object) -> str | None:
    if audience is not None and not isinstance(audience, str):
        raise TypeError(f"audience must be one string, not {type(audience).__name__} (RFC 7523 section 3).")
    return audience


def _check_shared(secret: str) -> None:
    if is_pem(secret.encode(errors="replace")):
        raise ValueError("This is a key or a certificate, not a secret. A private key signs by PrivateKeyJWT(key).")
    check_text("secret", secret)


@dataclass(frozen=True, slots=True, repr=False)
class Proof(Unpicklable):
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
class ClientIdentity(Unpicklable):
    """One client, and the method by which it proves who it is.

    Attributes:
        client_id: its name at the server; None where the request needs no client.
        method: how it authenticates.
        client_secret: its password, if the method needs one, or a function that is asked for it at each attempt.
        basic_encoding: how id and secret are written for Basic.
        issuer: the server's name, where that is known.
        token_endpoint: where the requests go.
        memory: what has been learned of the server; the requests of one grant share it.
    """

    client_id: str | None
    method: ClientAuth = "none"
    client_secret: Secret = None
    basic_encoding: BasicEncoding = "auto"
    issuer: str | None = None
    token_endpoint: str = ""
    memory: BasicMemory = field(default_factory=BasicMemory, compare=False)

    def prove(self, now: float) -> Proof:
        """What the next attempt sends, at `now` (seconds since the epoch).

        Raises:
            RefreshError: the function that is asked for the secret failed, or answered with something else.
        """
        if self.client_id is None:
            return Proof()
        if isinstance(self.method, (ClientSecretJWT, PrivateKeyJWT, ClientAssertion)):
            assertion = self.method.assertion(self, now)
            fields = {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
            return Proof({"client_id": self.client_id, **fields}, secrets=(assertion,))
        if self.client_secret is None or self.method not in ("client_secret_basic", "client_secret_post"):
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

    def audience_and_typ(self, audience: str | None) -> tuple[str, str]:
        """For whom an assertion is, and the header `typ` that goes with it.

        The issuer, and a type that no other JWT has: since 2025 that is the rule (draft-ietf-oauth-rfc7523bis), after
        attacks on assertions that were meant for a token endpoint. Where no issuer is known, or the user names an
        audience, it is as RFC 7523 section 3 has it.
        """
        if audience is None and self.issuer is not None:
            return self.issuer, "client-authentication+jwt"
        return audience or self.token_endpoint, "JWT"

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
        TypeError: `function`, the setting `name`, cannot be called, is a class, or is a coroutine function.
    """
    if isinstance(function, type):
        raise TypeError(
            f"{name} must be {what}, not the class {function.__name__}. Give one of its objects: "
            f"{name}={function.__name__}(...)."
        )
    if not callable(function):
        hint = f" Write {name}=lambda: auth.get_token().access_token." if hasattr(function, "get_token") else ""
        if isinstance(function, _OBJECTS):
            hint = f" Write client_auth={type(function).__name__}(...)."
        raise TypeError(f"{name} must be {what}, not {type(function).__name__}.{hint}")
    if iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise TypeError(f"{name} must be a plain function: a grant runs in a worker thread, where it may block.")


def ask_function(name: str, function: Callable[[], str]) -> str:
    """What `function`, given as the setting `name`, answers.

    Raises:
        RefreshError: it failed, or its answer is no string that can be sent.
        SignInRequired: it says that somebody has to sign in, at another `Reauth` that it asks. It is not final here.
    """
    try:
        answer = cast("object", function())
    except SignInRequired as error:
        raise sign_in_elsewhere(
            f"The function given as {name} says that somebody has to sign in, so nothing was sent", error
        ) from error
    except ReauthError:
        raise
    except Exception as error:
        place = place_of(error, function)
        raise RefreshError(
            f"The function given as {name} raised {type(error).__name__}{f' at {place}' if place else ''}, so nothing "
            "was sent. It is asked again after a back-off."
        ) from error
    if not isinstance(answer, str) or not answer:
        given = "an empty string" if isinstance(answer, str) else type(answer).__name__
        raise RefreshError(f"The function given as {name} returned {given} in place of a string: nothing was sent.")
    try:
        check_text(name, answer)
    except ValueError as error:
        raise RefreshError(f"{error} Nothing was sent.") from None
    return answer


def sign_in_elsewhere(what: str, error: SignInRequired) -> SignInRequired:
    """The error for `error` of another `Reauth`, whose token is needed here; `what` says which in words."""
    return in_our_words(
        SignInRequired(
            f"{what}. It is asked again at the next request.",
            error=error.error,
            error_description=error.error_description,
        ),
        "elsewhere",
    )


def in_every_spelling(secrets: Iterable[str]) -> list[str]:
    """`secrets`, and how they look in a URL and in a form."""
    return [spelling for secret in secrets for spelling in (secret, quote(secret, safe=""), quote_plus(secret))]
