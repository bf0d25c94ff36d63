"""Workload identity: the platform that runs a program proves the program's identity, so the program needs no secret.

Each identity is a function without arguments that returns a signed token. The function is called each time a token is
needed, so it returns the platform's newest token. Give the identity to `ClientAssertion`, to
`JWTBearerGrant(assertion=...)` or to `TokenExchangeGrant(subject_token=...)`, as your server requires.

Example:
    identity = FileIdentity("/var/run/secrets/tokens/api")
    grant = TokenExchangeGrant("https://id.example.com/token", subject_token=identity, subject_token_type="jwt")
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from httpx_reauth._clock import SYSTEM_CLOCK
from httpx_reauth._errors import RefreshError, drop_frames, in_ascii, printable
from httpx_reauth._token import Unpicklable
from httpx_reauth._tokens._refresh.worker import innermost_worker
from httpx_reauth.oauth.http import exchange, package_named
from httpx_reauth.oauth.redaction import redact
from httpx_reauth.oauth.request import check_token_url, origin_of

__all__ = ["FileIdentity", "GitHubActions"]

_MOST = 1024 * 1024  # bytes; a larger file is not a token, which has a few thousand bytes
_TIMEOUT = 5.0  # seconds for GitHub's response
_URL, _TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"


class FileIdentity:
    """Returns the token in a file that the platform writes, e.g. a projected service-account token of Kubernetes.

    The file is read at each use, since the platform replaces it long before the token expires.

    Args:
        path: the file.
        env: the environment variable that names the file, e.g. `"AZURE_FEDERATED_TOKEN_FILE"`. If the variable is not
            set, `path` is used.

    Raises:
        TypeError: neither `path` nor `env` is given.

    A call of the object raises:
        RefreshError: the variable is not set and there is no `path`. Or the file cannot be read, is empty, or contains
            no token.

    Example: `FileIdentity(env="AWS_WEB_IDENTITY_TOKEN_FILE")`
    """

    __slots__ = ("_env", "_path")

    def __init__(self, path: str | os.PathLike[str] | None = None, *, env: str | None = None) -> None:
        if path is None and env is None:
            raise TypeError(
                'FileIdentity needs a file: FileIdentity("/var/run/secrets/tokens/api"), or the variable that names '
                'it: FileIdentity(env="AWS_WEB_IDENTITY_TOKEN_FILE").'
            )
        self._path = None if path is None else Path(path)
        self._env = env

    def __call__(self) -> str:
        """Read the file, and return its token."""
        path = self._path_now()
        shown = in_ascii(str(path))
        try:
            with path.open("rb") as file:
                content = file.read(_MOST + 1)
        except OSError as error:
            raise RefreshError(
                f"The identity file {shown} cannot be read ({type(error).__name__}), so nothing was sent. Is the token "
                "mounted into this container, and may this user read it?"
            ) from None
        token = content.decode("ascii", "replace").strip()
        if not token:
            raise RefreshError(f"The identity file {shown} is empty, so nothing was sent. The platform may be late.")
        if len(content) > _MOST or any(not "!" <= char <= "~" for char in token):
            raise RefreshError(f"The identity file {shown} holds no token: it is one word of ASCII. Nothing was sent.")
        return token

    def _path_now(self) -> Path:
        named = os.environ.get(self._env) if self._env is not None else None
        if named:
            return Path(named)
        if self._path is None:
            raise RefreshError(
                f"The environment variable {self._env}, which names the identity file, is not set, so nothing was "
                "sent. Is workload identity switched on for this container?"
            )
        return self._path

    def __repr__(self) -> str:
        """The file and the variable."""
        given = [] if self._path is None else [repr(str(self._path))]
        return f"FileIdentity({', '.join(given + ([] if self._env is None else [f'env={self._env!r}']))})"


class GitHubActions(Unpicklable):
    """Returns an OpenID Connect token of GitHub for this workflow run. The job needs `permissions: id-token: write`.

    Each use requests a new token from GitHub. The runner sets the URL and the token of this request in the environment
    (`ACTIONS_ID_TOKEN_REQUEST_URL`, `ACTIONS_ID_TOKEN_REQUEST_TOKEN`).

    Args:
        audience: the receiver of the token (`aud`), as the server that receives it expects.

    Raises:
        TypeError: `audience` is not a string.
        ValueError: `audience` is empty.

    A call of the object raises:
        RefreshError: the program does not run in such a job, or GitHub returns no token.
        InsecureOrigin: the URL is plain http on another machine.
    """

    __slots__ = ("_audience",)

    def __init__(self, audience: str) -> None:
        if not isinstance(cast("object", audience), str):
            raise TypeError(f"audience must be a string, not {type(audience).__name__}.")
        if not audience:
            raise ValueError("audience is empty. Say for whom the token is, as that server expects it.")
        self._audience = audience

    def __call__(self) -> str:
        """Request a new token, and return it."""
        outcome = self._ask()
        if isinstance(outcome, str):
            return outcome
        try:
            raise outcome
        finally:
            del outcome  # the error refers to this frame; a variable here would make a reference cycle

    def _ask(self) -> str | Exception:
        try:
            return self._token()
        except Exception as error:  # noqa: BLE001 - the caller raises it, without the frames that hold secrets
            redact(error, os.environ.get(_TOKEN))
            drop_frames(error)
            return error

    def _token(self) -> str:
        url, secret = os.environ.get(_URL), os.environ.get(_TOKEN)
        if not url or not secret:
            raise RefreshError(
                f"There is no GitHub Actions job here that may ask for an identity: {_URL} and {_TOKEN} are not set. "
                "Give the job `permissions: id-token: write`."
            )
        try:
            check_token_url(url, allow_http=False, what=_URL)
        except ValueError:
            raise RefreshError(f"{_URL} is not a URL, so nothing was sent.") from None
        worker = innermost_worker()
        package = package_named(None if worker is None else worker.package)
        headers = {"accept": "application/json", "accept-encoding": "identity", "authorization": f"Bearer {secret}"}
        try:
            with package.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
                response = exchange(
                    client,
                    package,
                    "GET",
                    f"{url}{'&' if '?' in url else '?'}{urlencode({'audience': self._audience})}",
                    headers=headers,
                    deadline=SYSTEM_CLOCK.monotonic() + _TIMEOUT,
                    clock=SYSTEM_CLOCK,
                )
        except package.TransportError as error:
            raise RefreshError(
                f"GitHub ({origin_of(url)}) did not answer the request for an identity: {type(error).__name__}. It is "
                "asked again after a back-off."
            ) from None
        return _value(response)

    def __repr__(self) -> str:
        """The audience."""
        return f"GitHubActions({self._audience!r})"


def _value(response: Any) -> str:
    try:
        decoded = json.loads(response.content)
    except (ValueError, RecursionError):
        decoded = None
    fields = cast("dict[str, Any]", decoded) if isinstance(decoded, dict) else {}
    token = fields.get("value")
    if response.status_code != 200 or not isinstance(token, str) or not token:
        said = fields.get("message")
        words = f": {in_ascii(printable(said[:200]))}" if isinstance(said, str) else ""
        raise RefreshError(
            f"GitHub gave no identity for this job (status {response.status_code}{words}), so nothing was sent. It is "
            "asked again after a back-off."
        )
    return token
