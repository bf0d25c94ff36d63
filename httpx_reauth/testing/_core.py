"""What a server does with a request: record, count, spoil, grant or serve it; without any I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace

from httpx_reauth.testing._api import refusal, resource
from httpx_reauth.testing._endpoint import Endpoint
from httpx_reauth.testing._grants import Grants
from httpx_reauth.testing._ledger import Ledger
from httpx_reauth.testing._manual_clock import ManualClock
from httpx_reauth.testing._messages import Answer, Received, json_answer
from httpx_reauth.testing._settings import Settings
from httpx_reauth.testing._signal import Signal
from httpx_reauth.testing._token_endpoint import answer_token_request


@dataclass(kw_only=True, eq=False, repr=False)
class Core(Settings, Ledger):
    """Everything that an `AuthorizationServer` knows and does. Its methods may be called from any thread."""

    def __post_init__(self) -> None:
        Ledger.__init__(self)
        self.grants = Grants()
        self._closing = Signal()
        self._streams_end = Signal()
        self.token_endpoint = Endpoint(self._closing)
        self.api = Endpoint(self._closing)

    # What a test orders

    def expire_access_tokens(self) -> None:
        """Let every access token given out so far have expired; their holders do not know."""
        with self.lock:
            self.grants.expire_all_access(self.now())

    def revoke_access_tokens(self) -> None:
        """Revoke every access token given out so far."""
        with self.lock:
            self.grants.revoke_all_access()

    def revoke_refresh_tokens(self) -> None:
        """Revoke every refresh token given out so far (`invalid_grant` from now on); access tokens live on."""
        with self.lock:
            self.grants.revoke_all_refresh()

    def end_streams(self) -> None:
        """Let every open `/sse` send its last event and end."""
        with self.lock:
            end, self._streams_end = self._streams_end, Signal()
        end.set()

    def close(self) -> None:
        """Let everybody go: held answers are sent, streams end, and hanging connections are dropped."""
        self._closing.set()
        self.token_endpoint.let_go()
        self.api.let_go()
        self.end_streams()

    # What the adapters tell

    def receive(self, request: Received) -> Answer:
        """`request` has arrived as a whole; what to answer."""
        is_token_request = request.path == self.token_path
        endpoint = self.token_endpoint if is_token_request else self.api
        with self.lock:
            if self.keep_requests:
                self.record(request)
            fault = endpoint.next_fault()
            if is_token_request:
                self.token_requests += 1
            else:
                self.api_requests += 1
            if fault is not None and not fault.processed:
                answer = fault.answer
            else:
                process = self._process_token_request if is_token_request else self._process_api_request
                answer = process(request)
                if fault is not None:
                    answer = fault.answer
            answer = endpoint.delayed(answer, fault)
            self.changed()
        return _framed(answer, request.method)

    def body_received(self, length: int) -> None:
        """So many more bytes of some request's body have arrived."""
        with self.lock:
            self.body_bytes += length
            self.changed()

    def truncated(self, request: Received) -> None:
        """The connection ended before the body of `request` did."""
        with self.lock:
            self.truncated_requests += 1
            if self.keep_requests:
                self.record(request)
            self.changed()

    def stream_opened(self) -> Signal:
        """One more is open, until the returned signal is set."""
        with self.lock:
            self.open_streams += 1
            self.changed()
            return self._streams_end

    def stream_closed(self) -> None:
        """One has been closed."""
        with self.lock:
            self.open_streams -= 1
            self.changed()

    def _process_token_request(self, request: Received) -> Answer:
        return answer_token_request(request, self, self.grants, self, self.now())

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
        return served if isinstance(served, Answer) else json_answer(200, served)

    def now(self) -> float:
        """The time by which tokens expire, in seconds."""
        clock = self.clock  # a server is another machine: it does not sleep along
        return clock.elapsed() if isinstance(clock, ManualClock) else clock.monotonic()


def _framed(answer: Answer, method: str) -> Answer:
    """`answer` with the length of its body; without the body itself where there must be none (RFC 9110 §6.4.1)."""
    if answer.status in (204, 304):
        return replace(answer, body=b"")
    if isinstance(answer.body, bytes):
        answer = replace(answer, headers=(*answer.headers, ("Content-Length", str(len(answer.body)))))
    return replace(answer, body=b"") if method == "HEAD" else answer
