"""Metrics and spans of every refresh. Their names follow OpenTelemetry's conventions (extra `[otel]`).

This module needs only `opentelemetry-api`. The application chooses the SDK that receives and exports the data. Without
an SDK, nothing is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError(
        'httpx_reauth.otel needs opentelemetry-api: pip install "httpx-reauth[otel]"', name="opentelemetry"
    ) from error
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, Status, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from httpx_reauth import __version__
from httpx_reauth._errors import ReauthError
from httpx_reauth._state.actions import (
    Action,
    Reason,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    RevokeFailed,
    SignedIn,
    SignedOut,
)
from httpx_reauth._state.state import AuthState
from httpx_reauth._state.store import TokenStore

__all__ = ["instrument"]

_SCOPE = "httpx_reauth"
_OUTCOME = "httpx_reauth.refresh.outcome"
_REASON = "httpx_reauth.refresh.reason"
_NAME = "httpx_reauth.name"
_ERROR_TYPE = "error.type"

# Seconds: the buckets of the HTTP conventions, and two more, up to the default of `refresh_timeout`.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 30)

# Only these codes become an `error.type` (RFC 6749 §5.2 and §4.1.2.1, RFC 8707 §2). A server may send any other word,
# and a new word each time. Each word would be a new time series.
_CODES = frozenset({
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
})  # fmt: skip


def instrument(
    store: TokenStore,
    *,
    attributes: Mapping[str, AttributeValue] | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Callable[[], None]:
    """Measure and trace every refresh of `store` from now on; return a function that stops this.

    - Histogram `httpx_reauth.refresh.duration`, in seconds: one value for each refresh. Its count is the number of
      refreshes.
    - Counter `httpx_reauth.save.failures`: the number of changes that could not be written to the storage.
    - Span `httpx_reauth.refresh`: it lasts as long as the refresh. Its parent is the current span of the request that
      started the refresh. A refresh in the background (`expiring`) is a separate trace, since no request waits for it.
      That trace has a link to the request that started the refresh.

    The attributes contain no secret:

    - `httpx_reauth.refresh.reason`: `missing`, `expiring`, `expired` or `rejected`.
    - `httpx_reauth.refresh.outcome`: `renewed`, `adopted` (found in the storage), `failed`, or `overtaken` (superseded
      by a sign-in or a sign-out).
    - `error.type`, for a failure only: the OAuth code (`invalid_grant`), else the HTTP status (`503`), else the class
      of the exception (`httpx.ConnectTimeout`).
    - `httpx_reauth.name`, for a span only: the name of the `Reauth`, if it has one. On a metric, it would make a time
      series for each user.

    Args:
        store: the store, e.g. `auth.store`. If it is instrumented twice, it is measured twice.
        attributes: attributes for all spans and metrics, to distinguish several stores, e.g.
            `{"server.address": "id.example.com"}`. Do not use a user's name: it would make a time series for each user.
        tracer_provider: receives the spans; None: the global provider.
        meter_provider: receives the metrics; None: the global provider.

    Returns:
        A function that stops the measuring. It ends the span of a refresh under way, without an outcome.

    Example:
        auth = Reauth(grant)
        instrument(auth.store)
    """
    observer = _Observer(
        store,
        dict(attributes or {}),
        trace.get_tracer(_SCOPE, __version__, tracer_provider),
        metrics.get_meter(_SCOPE, __version__, meter_provider),
    )
    unsubscribe = store.subscribe(observer)

    def undo() -> None:
        unsubscribe()
        observer.forget()

    return undo


class _UnderWay(NamedTuple):
    """A refresh under way: `start` is in nanoseconds since the epoch, `begun` in monotonic seconds."""

    span: Span
    reason: Reason
    start: int
    begun: float


class _Observer:
    """A listener that measures the refreshes. The store calls it with one event at a time, so it needs no lock."""

    __slots__ = ("_attributes", "_duration", "_failures", "_store", "_tracer", "_under_way")

    def __init__(
        self, store: TokenStore, attributes: dict[str, AttributeValue], tracer: trace.Tracer, meter: metrics.Meter
    ) -> None:
        self._store = store
        self._attributes = attributes
        self._tracer = tracer
        self._duration = meter.create_histogram(
            "httpx_reauth.refresh.duration",
            unit="s",
            description="Duration of refreshes of the access token.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._failures = meter.create_counter(
            "httpx_reauth.save.failures",
            unit="{failure}",
            description="New tokens that could not be put into the storage.",
        )
        self._under_way: list[_UnderWay] = []  # it has one element at most; it is a list since `pop` is atomic

    def __call__(self, _: AuthState, action: Action) -> None:
        match action:
            case RefreshPending():
                self._under_way.clear()  # a forked child drops its parent's span, which the parent ends
                self._begin(action.reason)
            case RefreshFulfilled():
                self._end("adopted" if action.adopted else "renewed", action.elapsed, action.reason)
            case RefreshRejected():
                self._end("failed", action.elapsed, action.reason, action.error)
            case SignedIn() | SignedOut():
                self._end("overtaken")
            case RevokeFailed():
                pass
            case _:  # the type checker knows that only `SaveFailed` is left
                self._failures.add(1, {**self._attributes, _ERROR_TYPE: _error_type(action.error)})

    def _begin(self, reason: Reason) -> None:
        context, links = None, None
        here = trace.get_current_span().get_span_context()
        if reason == "expiring":
            context, links = Context(), [Link(here)] if here.is_valid else None
        start, attributes = time.time_ns(), {**self._attributes, _REASON: reason}
        if self._store._name is not None:
            attributes[_NAME] = self._store._name
        span = self._tracer.start_span(
            "httpx_reauth.refresh", context, attributes=attributes, links=links, start_time=start
        )
        self._under_way.append(_UnderWay(span, reason, start, time.monotonic()))

    def _end(
        self,
        outcome: str,
        elapsed: float | None = None,
        reason: Reason | None = None,
        error: ReauthError | None = None,
    ) -> None:
        with suppress(IndexError):  # the instrumentation began or stopped during this refresh
            span, at_first, start, begun = self._under_way.pop()
            reason = reason or at_first  # "missing" becomes "expired" if the storage has an expired token
            seconds = time.monotonic() - begun if elapsed is None else elapsed
            told: dict[str, AttributeValue] = {_OUTCOME: outcome, _REASON: reason}
            if error is not None:
                told[_ERROR_TYPE] = _error_type(error)
                # Not `record_exception`: it would also export the message and the traceback of a foreign cause.
                span.set_status(Status(StatusCode.ERROR, str(error)))
            span.set_attributes(told)
            measured = {**self._attributes, **told}
            self._duration.record(seconds, measured, trace.set_span_in_context(span))
            span.end(start + int(seconds * 1e9))  # the wall clock may have jumped

    def forget(self) -> None:
        with suppress(IndexError):
            self._under_way.pop().span.end()


def _error_type(error: ReauthError) -> str:
    """Return the type of `error`: the OAuth code, the HTTP status, or the class of the exception.

    The number of different values is small.
    """
    if error.error in _CODES:
        return str(error.error)
    status: object = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        return str(status)
    cls = type(error.__cause__ or error)
    if cls.__module__ == "builtins":
        return cls.__qualname__
    module = _SCOPE if cls.__module__.startswith(f"{_SCOPE}.") else cls.__module__
    return f"{module}.{cls.__qualname__}"
