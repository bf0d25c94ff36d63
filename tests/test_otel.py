"""Tests of `httpx_reauth.otel`: an OpenTelemetry SDK receives spans and metrics of real refreshes, in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import httpx_reauth
from httpx_reauth import (
    AuthState,
    Reauth,
    ReauthError,
    RefreshError,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignInRequired,
    StorageError,
    Token,
    TokenStore,
    otel,
)
from httpx_reauth.oauth import RefreshTokenGrant
from httpx_reauth.storage import MemoryStorage
from httpx_reauth.testing import AuthorizationServer, faults

REASON, OUTCOME, ERROR = "httpx_reauth.refresh.reason", "httpx_reauth.refresh.outcome", "error.type"


class Scripted(TokenStore):
    """A store whose listeners get the actions that a test passes to `hear`, as if a refresh had dispatched them."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Any] = []

    def subscribe(self, listener: Any) -> Any:
        self.listeners.append(listener)
        return lambda: listener in self.listeners and self.listeners.remove(listener)

    def hear(self, *actions: Any) -> None:
        for action in actions:
            for listener in list(self.listeners):
                listener(self.state, action)


class Telemetry:
    """An OpenTelemetry SDK for one test. It sets nothing global."""

    def __init__(self) -> None:
        self.spans_exported, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans_exported))
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("the application")

    def instrument(self, store: TokenStore, **settings: Any) -> Any:
        return otel.instrument(
            store, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **settings
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return [span for span in self.spans_exported.get_finished_spans() if span.name == "httpx_reauth.refresh"]

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return the attributes and the data point of each time series of that metric."""
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        metrics = [metric for of in data.resource_metrics for scope in of.scope_metrics for metric in scope.metrics]
        return [
            (dict(point.attributes), point)
            for metric in metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    @property
    def durations(self) -> dict[tuple[str, str, str | None], tuple[int, float]]:
        """Return, for each reason, outcome and error, the number of refreshes and their seconds in total."""
        return {
            (told[REASON], told[OUTCOME], told.get(ERROR)): (point.count, point.sum)
            for told, point in self.points("httpx_reauth.refresh.duration")
        }


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracer_provider.shutdown()
    telemetry.meter_provider.shutdown()


@pytest.fixture
def talk(server: AuthorizationServer, clock: Any) -> Iterator[Any]:
    """Return a function that makes pairs of an auth object and a client. They use `server`, in memory."""
    client = httpx.Client(transport=server.transport(httpx), base_url="https://api.test")

    def make(token: Token | None, **settings: Any) -> Reauth:
        grant = RefreshTokenGrant("https://api.test/token", "app", client=client)
        auth = Reauth(grant, token=token, clock=clock, **settings)
        client.auth = auth
        return auth

    make.client = client  # type: ignore[attr-defined]
    yield make
    client.close()


def test_a_span_has_the_name_of_its_auth_object_and_a_metric_has_not(telemetry, talk, server):
    for name in ("user-42", None):
        auth = talk(server.issue(lifetime=0), **({} if name is None else {"name": name}))
        telemetry.instrument(auth.store)
        talk.client.get("/me")
        auth.close()
    assert [span.attributes.get("httpx_reauth.name") for span in telemetry.spans] == ["user-42", None]
    ((told, point),) = telemetry.points("httpx_reauth.refresh.duration")
    assert "httpx_reauth.name" not in told
    assert point.count == 2


def test_a_token_that_is_found_expired_in_the_storage_is_measured_as_expired(telemetry, talk, server, clock):
    storage = MemoryStorage()
    storage.save(server.issue(lifetime=60))
    clock.advance(100)
    auth = talk(None, storage=storage)
    telemetry.instrument(auth.store)
    talk.client.get("/me")
    auth.close()
    (span,) = telemetry.spans
    assert span.attributes[REASON] == "expired"
    assert list(telemetry.durations) == [("expired", "renewed", None)]


def test_a_refresh_is_a_span_and_a_measured_duration_and_no_more(telemetry, talk, server):
    auth = talk(server.issue(lifetime=0))
    telemetry.instrument(auth.store, attributes={"server.address": "api.test"})
    heard = []
    auth.store.subscribe(lambda _, action: heard.append(action))
    for _ in range(3):
        assert talk.client.get("/me").status_code == 200
    (span,) = telemetry.spans
    assert span.kind is SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {REASON: "expired", OUTCOME: "renewed", "server.address": "api.test"}
    assert span.instrumentation_scope.name == "httpx_reauth"
    assert span.instrumentation_scope.version == httpx_reauth.__version__
    ((told, point),) = telemetry.points("httpx_reauth.refresh.duration")
    assert told == dict(span.attributes)
    assert (point.count, point.sum) == (1, heard[-1].elapsed)
    assert 1 in point.explicit_bounds  # the buckets are in seconds; the SDK's default buckets are for milliseconds


def test_a_measured_duration_leads_to_its_span(telemetry):
    store = Scripted()
    telemetry.instrument(store)
    store.hear(RefreshPending("missing"))
    store.hear(RefreshFulfilled(Token("a"), "missing", 1.5))
    ((_, point),) = telemetry.points("httpx_reauth.refresh.duration")
    assert [exemplar.span_id for exemplar in point.exemplars] == [telemetry.spans[0].context.span_id]


def test_the_metrics_have_the_units_of_the_conventions(telemetry):
    store = Scripted()
    telemetry.instrument(store)
    store.hear(RefreshPending("missing"))
    store.hear(RefreshFulfilled(Token("a"), "missing", 1.5))
    store.hear(SaveFailed(StorageError("full")))
    (of,) = telemetry.reader.get_metrics_data().resource_metrics
    (scope,) = of.scope_metrics
    assert {metric.name: metric.unit for metric in scope.metrics} == {
        "httpx_reauth.refresh.duration": "s",
        "httpx_reauth.save.failures": "{failure}",
    }


def test_a_span_starts_with_the_refresh_and_is_as_long_as_it_whatever_the_wall_clock_does(telemetry, monkeypatch):
    store = Scripted()
    telemetry.instrument(store)
    monkeypatch.setattr(otel.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    store.hear(RefreshPending("missing"))
    monkeypatch.undo()
    store.hear(RefreshFulfilled(Token("a"), "missing", 1.5))
    (span,) = telemetry.spans
    assert (span.start_time, span.end_time) == (1_700_000_000_000_000_000, 1_700_000_001_500_000_000)


def test_a_refresh_that_a_request_waits_for_is_a_child_of_the_request(telemetry, talk, server):
    auth = talk(server.issue(lifetime=0))
    telemetry.instrument(auth.store)
    with telemetry.tracer.start_as_current_span("the request") as request:
        talk.client.get("/me")
    (span,) = telemetry.spans
    assert span.parent == request.get_span_context()
    assert span.links == ()


def test_a_refresh_in_the_background_is_a_trace_of_its_own_with_a_link(telemetry, talk, server, clock):
    auth = talk(server.issue(lifetime=100))
    telemetry.instrument(auth.store)
    clock.advance(90)
    with telemetry.tracer.start_as_current_span("the request") as request:
        talk.client.get("/me")
    auth.close()
    (span,) = telemetry.spans
    assert span.parent is None
    assert span.context.trace_id != request.get_span_context().trace_id
    assert [link.context for link in span.links] == [request.get_span_context()]
    assert dict(span.attributes) == {REASON: "expiring", OUTCOME: "renewed"}


def test_a_refresh_in_the_background_outside_of_any_trace_has_no_link(telemetry):
    store = Scripted()
    telemetry.instrument(store)
    store.hear(RefreshPending("expiring"))
    store.hear(RefreshFulfilled(Token("a"), "expiring", 1.0))
    (span,) = telemetry.spans
    assert (span.parent, span.links) == (None, ())


@pytest.mark.anyio
async def test_a_coroutine_that_refreshes_and_traces_itself_stands_beside_the_span_of_the_refresh(telemetry, server):
    async def refresh(_: Token) -> Token:
        with telemetry.tracer.start_as_current_span("POST /token"):
            return server.issue()

    auth = Reauth(refresh, clock=server.clock)
    telemetry.instrument(auth.store)
    with telemetry.tracer.start_as_current_span("the request") as request:
        await auth.aget_token()
        with telemetry.tracer.start_as_current_span("GET /me"):
            pass
    parents = {span.name: span.parent for span in telemetry.spans_exported.get_finished_spans()}
    ours = request.get_span_context()
    assert parents == {"httpx_reauth.refresh": ours, "POST /token": ours, "GET /me": ours, "the request": None}


def test_the_spans_of_50_threads_that_share_a_refresh_are_one(telemetry, talk, server):
    auth = talk(server.issue(lifetime=0))
    telemetry.instrument(auth.store)
    with server.token_endpoint.hold() as gate:
        threads = [threading.Thread(target=talk.client.get, args=("/me",)) for _ in range(50)]
        for thread in threads:
            thread.start()
        server.wait_until(lambda: gate.held == 1)
        gate.release()
    for thread in threads:
        thread.join()
    assert len(telemetry.spans) == 1
    assert telemetry.durations.keys() == {("expired", "renewed", None)}


@pytest.mark.parametrize(
    ("fault", "error_type"),
    [
        (faults.unavailable(retry_after=9), "503"),
        (faults.reply(400, {"error": "invalid_grant"}), "invalid_grant"),
        (faults.reply(401, {"error": "invalid_client"}), "invalid_client"),
        (faults.reply(400, {"error": "a word that nobody else says"}), "400"),
        (faults.reply(200, {"error": "a word that nobody else says"}), "httpx_reauth.RefreshError"),
        (faults.dropped(), "httpx.RemoteProtocolError"),
    ],
)
def test_a_failed_refresh_says_what_went_wrong_in_one_of_few_words(telemetry, talk, server, fault, error_type):
    auth = talk(server.issue(lifetime=0))
    telemetry.instrument(auth.store)
    server.token_endpoint.fail(fault, fault, fault)
    with pytest.raises(ReauthError):
        talk.client.get("/me")
    (span,) = telemetry.spans
    assert dict(span.attributes) == {REASON: "expired", OUTCOME: "failed", ERROR: error_type}
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == str(auth.store.state.error)
    assert span.events == ()
    assert telemetry.durations[("expired", "failed", error_type)][0] == 1


def test_a_failure_of_no_package_is_recorded_by_its_name(telemetry):
    def refresh(_: Token) -> Token:
        raise ZeroDivisionError("s3cret")

    auth = Reauth(refresh)
    telemetry.instrument(auth.store)
    with pytest.raises(RefreshError):
        auth.get_token()
    assert telemetry.durations.keys() == {("missing", "failed", "ZeroDivisionError")}


def test_a_token_found_in_the_storage_is_adopted(telemetry, talk, server):
    storage = MemoryStorage()
    storage.save(server.issue())
    auth = talk(None, storage=storage)
    telemetry.instrument(auth.store)
    assert talk.client.get("/me").status_code == 200
    assert telemetry.durations.keys() == {("missing", "adopted", None)}
    assert server.token_requests == 0


def test_a_token_that_cannot_be_saved_is_counted(telemetry, talk, server):
    class Full(MemoryStorage):
        def save(self, token: Token) -> None:
            raise OSError("disk full")

    auth = talk(server.issue(lifetime=0), storage=Full())
    telemetry.instrument(auth.store, attributes={"app": "a"})
    assert talk.client.get("/me").status_code == 200
    ((told, point),) = telemetry.points("httpx_reauth.save.failures")
    assert (told, point.value) == ({"app": "a", ERROR: "OSError"}, 1)


@pytest.mark.parametrize("how", ["sign_in", "sign_out"])
def test_a_superseded_refresh_ends_its_span_as_superseded(telemetry, talk, server, how):
    auth = talk(server.issue(lifetime=0))
    telemetry.instrument(auth.store)
    with server.token_endpoint.hold() as gate:
        thread = threading.Thread(target=lambda: auth_errors(auth))
        thread.start()
        server.wait_until(lambda: gate.held == 1)
        auth.sign_in(server.issue()) if how == "sign_in" else auth.sign_out()
        gate.release()
    thread.join()
    auth.close()
    (span,) = telemetry.spans
    assert dict(span.attributes) == {REASON: "expired", OUTCOME: "overtaken"}
    assert span.end_time >= span.start_time
    assert telemetry.durations.keys() == {("expired", "overtaken", None)}


def auth_errors(auth: Reauth) -> None:
    with suppress(SignInRequired):
        auth.get_token()


def test_a_sign_in_without_a_refresh_is_no_refresh(telemetry):
    store = Scripted()
    telemetry.instrument(store)
    store.hear(SignedIn(Token("a")))
    assert telemetry.spans == []
    assert telemetry.durations == {}


def test_after_the_undo_nothing_is_measured_and_the_span_under_way_has_ended(telemetry):
    store = Scripted()
    undo = telemetry.instrument(store)
    store.hear(RefreshPending("missing"))
    undo()
    (span,) = telemetry.spans
    assert dict(span.attributes) == {REASON: "missing"}
    store.hear(RefreshRejected(RefreshError("down"), "missing", 1.0))
    store.hear(RefreshPending("missing"))
    store.hear(RefreshFulfilled(Token("a"), "missing", 1.0))
    undo()  # a second call does no harm
    assert len(telemetry.spans) == 1
    assert telemetry.durations == {}


def test_a_refresh_that_began_before_is_not_measured(telemetry):
    store = Scripted()
    store.hear(RefreshPending("missing"))
    telemetry.instrument(store)
    store.hear(RefreshFulfilled(Token("a"), "missing", 1.0))
    assert telemetry.spans == []
    assert telemetry.durations == {}


def test_a_flight_left_behind_by_a_fork_is_not_taken_for_the_next_one(telemetry):
    store = Scripted()
    telemetry.instrument(store)
    store.hear(RefreshPending("expired"))  # in the parent process
    store.hear(RefreshPending("rejected"))
    store.hear(RefreshFulfilled(Token("a"), "rejected", 1.0))
    store.hear(SignedIn(Token("b")))  # no refresh is running, so it supersedes none
    assert [dict(span.attributes) for span in telemetry.spans] == [{REASON: "rejected", OUTCOME: "renewed"}]


def test_without_an_sdk_it_does_nothing_and_breaks_nothing(talk, server):
    auth = talk(server.issue(lifetime=0))
    undo = otel.instrument(auth.store)
    assert talk.client.get("/me").status_code == 200
    undo()


def test_guarantee_11_no_secret_is_in_any_span_or_metric(telemetry, talk, server):
    secrets = []

    def heed(state: AuthState, _: object) -> None:
        secrets.extend(filter(None, (state.token.access_token, state.token.refresh_token)) if state.token else ())

    auth = talk(server.issue(lifetime=0))
    heed(auth.store.state, None)
    auth.store.subscribe(heed)
    telemetry.instrument(auth.store)
    talk.client.get("/me")
    server.revoke_access_tokens()
    echo = {"error": "invalid_grant", "error_description": f"unknown token {secrets[-1]}"}
    server.token_endpoint.fail(faults.reply(400, echo))
    with pytest.raises(SignInRequired):
        talk.client.get("/me")
    said = "".join(span.to_json() for span in telemetry.spans) + telemetry.reader.get_metrics_data().to_json()
    assert "unknown token ***" in said
    assert len(set(secrets)) == 4
    assert not [secret for secret in secrets if secret in said]
