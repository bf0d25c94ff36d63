"""The work of a server on a request: it records and counts the request, and makes the response. There is no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from httpx_reauth.testing._api import refusal, resource
from httpx_reauth.testing._assertions import Assertions
from httpx_reauth.testing._authorization import WELL_KNOWN, authorize, authorize_device, metadata, metadata_path
from httpx_reauth.testing._endpoint import Endpoint
from httpx_reauth.testing._grants import Grants
from httpx_reauth.testing._ledger import Ledger
from httpx_reauth.testing._manual_clock import ManualClock
from httpx_reauth.testing._messages import Answer, Received, json_answer
from httpx_reauth.testing._settings import Settings
from httpx_reauth.testing._sign_ins import SignIns
from httpx_reauth.testing._signal import Signal
from httpx_reauth.testing._token_endpoint import TokenEndpoint
from httpx_reauth.testing.faults import Fault


@dataclass(kw_only=True, eq=False, repr=False)
class Core(Settings, Ledger):
    """The state and the work of an `AuthorizationServer`. Any thread may call its methods."""

    def __post_init__(self) -> None:
        Ledger.__init__(self)
        self.grants = Grants()
        self._closing = Signal()
        self._streams_end = Signal()
        self._sign_ins = SignIns()
        self._tokens = TokenEndpoint(self, self, self.grants, self._sign_ins, Assertions(self))
        self.token_endpoint = Endpoint(self._closing)
        self.metadata_endpoint = Endpoint(self._closing)
        self.authorization_endpoint = Endpoint(self._closing)
        self.device_endpoint = Endpoint(self._closing)
        self.revocation_endpoint = Endpoint(self._closing)
        self.api = Endpoint(self._closing)

    # Methods for a test

    def expire_access_tokens(self) -> None:
        """Expire every access token issued so far. Clients do not notice it before their next request."""
        with self.lock:
            self.grants.expire_all_access(self.now())

    def revoke_access_tokens(self) -> None:
        """Revoke every access token issued so far."""
        with self.lock:
            self.grants.revoke_all_access()

    def revoke_refresh_tokens(self) -> None:
        """Revoke every refresh token issued so far. They now get `invalid_grant`. Access tokens stay valid."""
        with self.lock:
            self.grants.revoke_all_refresh()

    def approve_device(self, user_code: str | None = None) -> int:
        """Answer yes for the user of the device with `user_code` (None: for all waiting devices).

        Returns:
            the number of devices that were waiting.
        """
        with self.lock:
            return self._sign_ins.answer_devices(user_code, "approved")

    def deny_device(self, user_code: str | None = None) -> int:
        """Answer no for the user of the device with `user_code` (None: for all waiting devices).

        Returns:
            the number of devices that were waiting.
        """
        with self.lock:
            return self._sign_ins.answer_devices(user_code, "denied")

    def expire_device_codes(self) -> None:
        """Expire every device code issued so far."""
        with self.lock:
            self._sign_ins.expire_devices(self.now())

    def is_good(self, token: str) -> bool:
        """Return whether `token` is an access token that the API accepts, or a refresh token that can be used."""
        with self.lock:
            return self.grants.is_good(token, self.now())

    def end_streams(self) -> None:
        """End every open `/sse` stream, after its last event."""
        with self.lock:
            end, self._streams_end = self._streams_end, Signal()
        end.set()

    def close(self) -> None:
        """Send all held responses, end the streams, and drop hanging connections."""
        self._closing.set()
        for endpoint in (
            self.token_endpoint,
            self.metadata_endpoint,
            self.authorization_endpoint,
            self.device_endpoint,
            self.revocation_endpoint,
            self.api,
        ):
            endpoint.let_go()
        self.end_streams()

    # Methods for the adapters

    def receive(self, request: Received) -> Answer:
        """Return the response to `request`, which has arrived completely."""
        with self.lock:
            if self.keep_requests:
                self.record(request)
            endpoint, process = self._part(request.path)
            fault = endpoint.next_fault()
            if fault is not None and not fault.processed:
                answer = fault.answer
            else:
                answer = process(request)
                if fault is not None:
                    answer = fault.answer
            answer = endpoint.delayed(answer, fault)
            self.changed()
        return _framed(answer, request.method)

    def body_received(self, length: int) -> None:
        """Count `length` more bytes of a request's body."""
        with self.lock:
            self.body_bytes += length
            self.changed()

    def truncated(self, request: Received) -> None:
        """Count `request`, whose connection ended before the end of its body."""
        with self.lock:
            self.truncated_requests += 1
            if self.keep_requests:
                self.record(request)
            self.changed()

    def stream_opened(self) -> Signal:
        """Count one more open stream. It must end when the returned signal is set."""
        with self.lock:
            self.open_streams += 1
            self.changed()
            return self._streams_end

    def stream_closed(self) -> None:
        """Count one stream less."""
        with self.lock:
            self.open_streams -= 1
            self.changed()

    def _part(self, path: str) -> tuple[Endpoint, Callable[[Received], Answer]]:
        """Count the request, and return the endpoint at `path` with the function that makes its response."""
        if path == self.token_path:
            self.token_requests += 1
            return self.token_endpoint, lambda request: self._tokens.issue(request, self.now())
        if path == metadata_path(self) or WELL_KNOWN in path:
            self.metadata_requests += 1
            return self.metadata_endpoint, lambda request: metadata(request, self)
        if path == self.authorization_path:
            self.authorization_requests += 1
            return self.authorization_endpoint, lambda request: authorize(request, self, self._sign_ins, self.now())
        if path == self.device_path:
            self.device_requests += 1
            return self.device_endpoint, self._process_device_request
        if path == self.revocation_path:
            self.revocation_requests += 1
            return self.revocation_endpoint, self._tokens.revoke
        self.api_requests += 1
        return self.api, self._process_api_request

    def _process_device_request(self, request: Received) -> Answer:
        if request.method == "GET":  # the page that the user opens; `consent` decides the answer
            answer = self.approve_device if self.consent else self.deny_device
            known = "user_code" in request.params and answer(request.params["user_code"])
            return Answer(200 if known else 404, (("Content-Type", "text/plain"),), b"You may close this window.")
        return authorize_device(request, self, self._sign_ins, self._tokens, self.now())

    def _process_api_request(self, request: Received) -> Answer:
        refused = refusal(request, self, self.grants, self.now())
        if refused is None:
            return self._serve(request)
        self.api_unauthorized += 1
        return refused

    def _serve(self, request: Received) -> Answer:
        if self.resource is None:
            return resource(request, self)
        served = self.resource(request)
        if isinstance(cast("object", served), Fault):
            raise TypeError("resource returned a Fault. Return its answer: faults.reply(...).answer.")
        return served if isinstance(served, Answer) else json_answer(200, served)

    def now(self) -> float:
        """Return the time that decides whether a token has expired, in seconds."""
        clock = self.clock  # the server is a different machine: it does not sleep when the client's machine sleeps
        return clock.elapsed() if isinstance(clock, ManualClock) else clock.monotonic()


def _framed(answer: Answer, method: str) -> Answer:
    """Add the `Content-Length`, and remove the body if the response must not have one (RFC 9110 §6.4.1)."""
    if answer.status in (204, 304):
        return replace(answer, body=b"")
    if isinstance(answer.body, bytes):
        answer = replace(answer, headers=(*answer.headers, ("Content-Length", str(len(answer.body)))))
    return replace(answer, body=b"") if method == "HEAD" else answer
