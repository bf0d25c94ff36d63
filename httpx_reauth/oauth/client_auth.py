"""Client authentication: a client proves its identity to a token endpoint (RFC 6749 section 2.3).

A token request carries the method of authentication, not its result. The driver makes a new `Proof` before each
attempt, because the secret may have been replaced since the last attempt, and because an assertion may be used only
once.

Basic has two spellings. RFC 6749 section 2.3.1 wants id and secret form-encoded before they are joined. Some servers do
not decode them. With `basic_encoding="auto"`, these rules hold:

1. The form-encoded spelling is sent first.
2. If the server returns `invalid_client` in JSON and the plain spelling is different, the plain spelling is sent once,
   in the same attempt.
3. If one of the spellings brings a token, it is remembered. From then on, only this spelling is sent.
4. If both spellings are refused, the secret is wrong. From then on, only the form-encoded spelling is sent, until the
   secret changes. Two failures for each attempt could lock an account.
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

_EARLIER = 10.0  # seconds; an assertion is valid from this long before now, since the server's clock may be behind
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_UNSENDABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # surrogates: bytes of the environment that are not UTF-8


class ClientSecretJWT(Unpicklable):
    """The client signs an assertion with the secret that the server knows as well (RFC 7523 section 2.2).

    Needs the extra `[jwt]`. Each attempt gets a new assertion.

    Args:
        secret: the client's secret, at least as long as the hash (RFC 7518 section 3.2). Or a function that returns
            the secret; it is called before each attempt.
        alg: HS256, HS384 or HS512.
        audience: the receiver of the assertion (`aud`). None: the issuer if an `Issuer` is known, else the token
            endpoint.
        lifetime: seconds for which the assertion is valid, by the clock of the `Reauth`.

    Raises:
        ValueError: `secret` is empty, or is a key, or `alg` is not one of the three algorithms.
        TypeError: a setting is of a wrong type.
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
        """Return a new assertion, made at `now` (seconds since the epoch)."""
        secret = self._secret
        if not isinstance(secret, str):
            secret = call_function("secret", secret)
        audience, typ = client.audience_and_typ(self._audience)
        claims = {"iss": client.client_id, "sub": client.client_id, "aud": audience, **validity(now, self._lifetime)}
        return SharedKey(secret.encode(), self._alg).sign(claims, typ=typ)

    def __repr__(self) -> str:
        """The settings, without the secret."""
        return f"ClientSecretJWT(alg={self._alg!r}, audience={self._audience!r}, lifetime={self._lifetime!r})"


class PrivateKeyJWT(Unpicklable):
    """The client signs an assertion with a private key whose public half the server knows (RFC 7523 section 2.2).

    Needs the extra `[jwt]`. Each attempt gets a new assertion, and so a new `jti`.

    Args:
        key: PEM (text or bytes), a JWK (a mapping), or the `Path` of a file with one of these. The file is read again
            when it has changed. If the PEM has a certificate, the assertion gets the header `x5t#S256`.
        kid: the key's name at the server.
        alg: the algorithm. None: RS256, ES256, ES384, ES512 or EdDSA, chosen by the type of the key. PS256 is used only
            if you ask for it.
        audience: the receiver of the assertion (`aud`). None: the issuer if an `Issuer` is known, else the token
            endpoint.
        lifetime: seconds for which the assertion is valid, by the clock of the `Reauth`.
        claims: further claims; they replace `iss`, `sub` and `aud`.
        headers: further headers, e.g. `x5c`.
        typ: the header `typ`. `...`: `client-authentication+jwt` if the audience is the issuer, else `JWT`. None: the
            assertion has no header `typ`.

    Raises:
        ValueError: the key cannot sign with `alg`: it is public, encrypted, or of a different type. Or its certificate
            has expired.
        TypeError: a setting is of a wrong type.
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
        """Return a new assertion, made at `now` (seconds since the epoch)."""
        audience, typ = client.audience_and_typ(self._audience)
        names = {"iss": client.client_id, "sub": client.client_id, "aud": audience}
        claims = {**names, **self._claims, **validity(now, self._lifetime)}
        return self._key.sign(claims, typ=typ if isinstance(self._typ, EllipsisType) else self._typ)

    def __repr__(self) -> str:
        """The settings, without the private key."""
        return f"PrivateKeyJWT({self._key!r}, audience={self._audience!r}, lifetime={self._lifetime!r})"


class ClientAssertion(Unpicklable):
    """The client's assertion comes from a function: workload identity, a vault, a KMS (RFC 7521 section 4.2).

    Args:
        source: a plain function that returns the assertion; it is called before each attempt.

    Raises:
        TypeError: `source` is not a plain function.

    Example: `ClientAssertion(FileIdentity("/var/run/secrets/tokens/id"))`
    """

    __slots__ = ("_source",)

    def __init__(self, source: Callable[[], str]) -> None:
        check_function("source", source, "a function that returns the assertion")
        self._source = source

    def assertion(self, client: ClientIdentity, now: float) -> str:  # noqa: ARG002 - the other classes use them
        """Return the result of the function."""
        return call_function("source", self._source)

    def __repr__(self) -> str:
        """The name of the function."""
        source = getattr(self._source, "__qualname__", None) or type(self._source).__qualname__
        return f"ClientAssertion({source})"


class TLSClientAuth(Unpicklable):
    """The client proves its identity with the TLS certificate of `client=` (RFC 8705).

    The form has only the `client_id`, no secret. With an `Issuer`, the endpoints in the server's
    `mtls_endpoint_aliases` are used if it has them (RFC 8705 section 5).

    Example:
        context = ssl.create_default_context()
        context.load_cert_chain("client.pem")
        client = httpx.Client(verify=context)
        grant = ClientCredentialsGrant(issuer, "reports", client_auth=TLSClientAuth(), client=client)
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """The class has no settings."""
        return "TLSClientAuth()"


Assertion: TypeAlias = ClientSecretJWT | PrivateKeyJWT | ClientAssertion
ClientAuth: TypeAlias = Literal["client_secret_basic", "client_secret_post", "none"] | Assertion | TLSClientAuth

_BY_NAME = ("client_secret_basic", "client_secret_post", "none")
_OBJECTS = (ClientSecretJWT, PrivateKeyJWT, ClientAssertion, TLSClientAuth)


def check_client_auth(method: object) -> None:
    """Raise an error if `method` is not a method of client authentication.

    Raises:
        ValueError: `method` is not a method of client authentication; the message lists the methods.
        TypeError: `method` is a class of this module, not an object of the class.
    """
    if isinstance(method, _OBJECTS) or method in _BY_NAME:
        return
    if isinstance(method, type) and method in cast("tuple[type, ...]", _OBJECTS):
        name = method.__name__
        raise TypeError(f"client_auth is the class {name}. Make one of it: client_auth={name}(...).")
    names = ", ".join(one.__name__ for one in _OBJECTS)
    raise ValueError(f"client_auth must be one of {', '.join(_BY_NAME)}, or one of these objects: {names}.")


def validity(now: float, lifetime: float) -> dict[str, Any]:
    """Return the claims `iat`, `exp` and a new `jti`, for an assertion that is made at `now` (RFC 7523 section 3)."""
    return {"iat": int(now - _EARLIER), "exp": math.ceil(now + lifetime), "jti": token_urlsafe(24)}


def checked_seconds(name: str, value: object) -> float:
    """Return `value`, the setting `name`, if it is a number of seconds above 0.

    Raises:
        TypeError: `value` is not a number.
        ValueError: `value` is 0, negative, infinite or not a number (NaN).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}.")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0.")
    return value


def checked_claims(claims: object) -> dict[str, Any]:
    """Return a copy of `claims`.

    Raises:
        TypeError: `claims` is not a mapping, or JSON cannot represent it.
        ValueError: `claims` contains `iat`, `exp` or `jti`, which are new in each assertion.
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
    """The fields and headers that one attempt sends to prove the client's identity.

    Attributes:
        fields: fields of the form.
        headers: headers, by their lower-case names.
        secrets: the strings that no error may repeat.
        spelling: the spelling of Basic; None if the two spellings are the same.
        otherwise: the proof in the other spelling, if it may be sent after the server has returned `invalid_client`.
    """

    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: tuple[str, ...] = ()
    spelling: Literal["form", "plain"] | None = None
    otherwise: Proof | None = None


class BasicMemory:
    """A grant's memory of the spelling of Basic that the server accepts.

    Attributes:
        works: the spelling that brought a token.
        refused: a hash of the id and the secret that the server refused in both spellings.
    """

    __slots__ = ("refused", "works")

    def __init__(self) -> None:
        self.works: Literal["form", "plain"] | None = None
        self.refused: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ClientIdentity(Unpicklable):
    """One client, and its method of authentication.

    Attributes:
        client_id: the client's name at the server; None if the request names no client.
        method: the method of authentication.
        client_secret: the client's password, if the method needs one; or a function that returns it and is called
            before each attempt.
        basic_encoding: the spelling of id and secret for Basic.
        issuer: the server's name, if it is known.
        token_endpoint: the URL to which the requests are sent.
        memory: the spelling of Basic that the server accepts; all requests of one grant share it.
    """

    client_id: str | None
    method: ClientAuth = "none"
    client_secret: Secret = None
    basic_encoding: BasicEncoding = "auto"
    issuer: str | None = None
    token_endpoint: str = ""
    memory: BasicMemory = field(default_factory=BasicMemory, compare=False)

    def prove(self, now: float) -> Proof:
        """Return the proof that the next attempt sends, made at `now` (seconds since the epoch).

        Raises:
            RefreshError: the function that returns the secret or the assertion failed, or its result is not a string.
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
            secret = call_function("client_secret", secret)
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
        is_open = known is None and ":" not in client_id  # in plain Basic, the id ends at the first colon
        is_open = is_open and self.memory.refused != hash((client_id, client_secret))
        headers = {"authorization": f"Basic {encoded}"}
        return Proof(headers=headers, secrets=secrets, spelling="form", otherwise=plain if is_open else None)

    def audience_and_typ(self, audience: str | None) -> tuple[str, str]:
        """Return the audience of an assertion, and its header `typ`.

        If the issuer is known, they are the issuer and a type that no other JWT has. This is the rule since 2025
        (draft-ietf-oauth-rfc7523bis): attackers have misused assertions whose audience was a token endpoint. If no
        issuer is known, or the user has set an audience, RFC 7523 section 3 applies.
        """
        if audience is None and self.issuer is not None:
            return self.issuer, "client-authentication+jwt"
        return audience or self.token_endpoint, "JWT"

    def accepted(self, proof: Proof) -> None:
        """Remember that `proof` brought a token."""
        if self.basic_encoding == "auto" and proof.spelling is not None:
            self.memory.works = proof.spelling

    def refused(self, proof: Proof) -> None:
        """Remember that the server returned `invalid_client` to `proof` and to `proof.otherwise`."""
        self.memory.refused = hash((self.client_id, proof.secrets[0]))


def basic_credentials(client_id: str, client_secret: str) -> str:
    """Return the credentials that follow `Basic `, with id and secret form-encoded first (RFC 6749 section 2.3.1)."""
    # A space becomes %20, not a plus: a form decoder reads both, and some servers decode only percent signs.
    return _joined(quote(client_id, safe=""), quote(client_secret, safe=""))


def _joined(client_id: str, client_secret: str) -> str:
    return base64.b64encode(f"{client_id}:{client_secret}".encode()).decode("ascii")


def check_text(name: str, value: str) -> None:
    """Raise an error if `value` cannot be sent as a client id or secret (RFC 6749 A.1, A.2).

    Raises:
        ValueError: `value` has a control character, or a surrogate (half of a UTF-16 pair).
    """
    if _UNSENDABLE.search(value):
        raise ValueError(
            f"The {name} has a line break or another character that cannot be sent (RFC 6749 A.1, A.2). "
            "Was it read from a file without .strip()?"
        )


def check_function(name: str, function: object, what: str) -> None:
    """Raise an error if `function` is not a plain function.

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


def call_function(name: str, function: Callable[[], str]) -> str:
    """Call `function`, the setting `name`, and return its result.

    Raises:
        RefreshError: `function` failed, or its result is not a string that can be sent.
        SignInRequired: `function` uses another `Reauth`, and somebody has to sign in there. The next request calls
            `function` again.
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
    """Return a copy of `error`, which another `Reauth` raised, for the `Reauth` that needs its token.

    Args:
        what: the first sentence of the message: which other `Reauth` it is, and what that means here.
        error: the error of the other `Reauth`.
    """
    return in_our_words(
        SignInRequired(
            f"{what}. It is asked again at the next request.",
            error=error.error,
            error_description=error.error_description,
        ),
        "elsewhere",
    )


def in_every_spelling(secrets: Iterable[str]) -> list[str]:
    """Return each secret as it is, percent-encoded for a URL, and encoded for a form."""
    return [spelling for secret in secrets for spelling in (secret, quote(secret, safe=""), quote_plus(secret))]
