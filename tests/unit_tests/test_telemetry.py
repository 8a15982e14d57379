import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from unit_tests.decided import decided, escalated

from langchain_slm.errors import MissingExtraError
from langchain_slm.routing.counters import Decided
from langchain_slm.routing.telemetry import OpenTelemetryListener

TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
TOKEN_BUCKETS += (4194304, 16777216, 67108864)
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
DURATION_BUCKETS += (10.24, 20.48, 40.96, 81.92)
COMMON = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "slm-8b",
    "gen_ai.response.model": "slm-8b",
    "langchain_slm.site": "triage",
}


class Observed:
    """A listener with providers of its own, and what they were given."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider(metric_readers=[self._metrics])
        self.listener = OpenTelemetryListener(self.tracers, self.meters)

    def span(self) -> ReadableSpan:
        (span,) = self._spans.get_finished_spans()
        return span

    def metrics(self) -> dict[str, Metric]:
        data = self._metrics.get_metrics_data()
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "langchain_slm"
        return {metric.name: metric for metric in scope.metrics}


@pytest.fixture
def observed() -> Iterator[Observed]:
    observed = Observed()
    yield observed
    observed.tracers.shutdown()
    observed.meters.shutdown()


def points(metric: Metric) -> list[Any]:
    return list(metric.data.data_points)


# Spans


def test_an_answered_request_is_a_span_of_the_conventions(observed: Observed):
    observed.listener(decided())
    span = observed.span()
    assert span.name == "chat slm-8b"
    assert span.kind is SpanKind.CLIENT
    assert span.start_time == 1_700_000_000_500_000_000
    assert span.end_time == 1_700_000_001_000_000_000
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == COMMON | {
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "langchain_slm.task": "t1",
        "langchain_slm.bound": "slm-8b",
        "langchain_slm.rule": "proven",
        "langchain_slm.plan": "plan-1",
        "langchain_slm.escalated": False,
        "langchain_slm.usd": 0.25,
        "langchain_slm.failed_usd": 0.0,
        "langchain_slm.attempts": 1,
    }


def test_the_span_of_an_escalated_request_says_who_answered_and_why(observed: Observed):
    observed.listener(escalated(streamed=True))
    span = observed.span()
    assert span.name == "chat gpt-ref"
    assert span.attributes["gen_ai.response.model"] == "gpt-ref"
    assert span.attributes["gen_ai.request.stream"] is True
    assert span.attributes["langchain_slm.bound"] == "slm-8b"
    assert span.attributes["langchain_slm.escalated"] is True
    assert (
        span.attributes["langchain_slm.reason"]
        == "arguments of tool book: nights is not an integer"
    )
    assert span.attributes["langchain_slm.failed_usd"] == 0.25
    # An escalation that was answered is no error.
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in span.attributes


def test_a_failed_request_is_a_span_with_an_error_and_no_response(observed: Observed):
    observed.listener(decided(error="DeadlineExceededError", reason="late"))
    span = observed.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "DeadlineExceededError"
    assert "gen_ai.response.model" not in span.attributes


def test_the_span_is_a_child_of_the_current_one(observed: Observed):
    tracer = observed.tracers.get_tracer("app")
    with tracer.start_as_current_span("node") as parent:
        observed.listener(decided())
        child = observed.span()
        assert child.parent.span_id == parent.get_span_context().span_id
        assert child.context.trace_id == parent.get_span_context().trace_id


def test_the_span_is_a_root_where_no_other_is_current(observed: Observed):
    observed.listener(decided())
    assert observed.span().parent is None


def test_what_is_unknown_has_no_attribute(
    observed: Observed, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        unknown = ("task", "bound", "usd", "failed_usd", "input_tokens", "output_tokens")
        observed.listener(decided(**dict.fromkeys(unknown)))
    assert not caplog.records
    assert set(observed.span().attributes) == set(COMMON) | {
        "langchain_slm.rule",
        "langchain_slm.plan",
        "langchain_slm.escalated",
        "langchain_slm.attempts",
    }


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "openai"),
        ("nvidia", "nvidia"),
        ("aws", "aws.bedrock"),
        ("google_genai", "gcp.gemini"),
        ("google_vertexai", "gcp.vertex_ai"),
        ("ibm", "ibm.watsonx.ai"),
        ("mistralai", "mistral_ai"),
        ("xai", "x_ai"),
    ],
)
def test_providers_have_the_names_of_the_conventions(
    observed: Observed, provider: str, name: str
):
    observed.listener(decided(provider=provider))
    assert observed.span().attributes["gen_ai.provider.name"] == name


# Metrics


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("gen_ai.client.operation.duration", "s"),
        ("gen_ai.client.token.usage", "{token}"),
        ("gen_ai.client.inference.duration", "s"),
        ("gen_ai.client.inference.operation.input_tokens", "{token}"),
        ("gen_ai.client.inference.operation.output_tokens", "{token}"),
        ("gen_ai.client.inference.usage.input_tokens", "{token}"),
        ("gen_ai.client.inference.usage.output_tokens", "{token}"),
        ("langchain_slm.escalations", "{escalation}"),
        ("langchain_slm.cost", "{USD}"),
    ],
)
def test_metrics_have_the_units_of_the_conventions(
    observed: Observed, name: str, unit: str
):
    observed.listener(escalated())
    metrics = observed.metrics()
    assert metrics[name].unit == unit
    assert len(metrics) == 9


@pytest.mark.parametrize("operation", ["operation", "inference"])
def test_durations_are_histograms_in_seconds(observed: Observed, operation: str):
    observed.listener(decided())
    observed.listener(decided(latency_s=1.5))
    (point,) = points(observed.metrics()[f"gen_ai.client.{operation}.duration"])
    assert (point.count, point.sum) == (2, 2.0)
    assert point.explicit_bounds == DURATION_BUCKETS
    assert dict(point.attributes) == COMMON


@pytest.mark.parametrize("operation", ["operation", "inference"])
def test_a_failed_request_is_timed_with_its_error(observed: Observed, operation: str):
    observed.listener(decided(error="EndpointError", reason="not JSON"))
    (point,) = points(observed.metrics()[f"gen_ai.client.{operation}.duration"])
    assert point.attributes["error.type"] == "EndpointError"
    assert "gen_ai.response.model" not in point.attributes


def test_tokens_are_a_histogram_by_type(observed: Observed):
    observed.listener(decided())
    by_type = {
        point.attributes["gen_ai.token.type"]: (point.sum, point.explicit_bounds)
        for point in points(observed.metrics()["gen_ai.client.token.usage"])
    }
    assert by_type == {"input": (100, TOKEN_BUCKETS), "output": (20, TOKEN_BUCKETS)}


@pytest.mark.parametrize(("way", "tokens"), [("input", 100), ("output", 20)])
def test_tokens_are_counted_and_distributed_by_direction(
    observed: Observed, way: str, tokens: int
):
    observed.listener(decided())
    observed.listener(decided())
    metrics = observed.metrics()
    (used,) = points(metrics[f"gen_ai.client.inference.usage.{way}_tokens"])
    (each,) = points(metrics[f"gen_ai.client.inference.operation.{way}_tokens"])
    assert used.value == 2 * tokens
    assert dict(used.attributes) == COMMON | {"gen_ai.token.modality": "unknown"}
    assert (each.count, each.sum) == (2, 2 * tokens)
    assert each.explicit_bounds == TOKEN_BUCKETS
    assert dict(each.attributes) == COMMON


@pytest.mark.parametrize("tokens", [None, -1, float("nan")])
def test_unknown_tokens_are_in_no_distribution(observed: Observed, tokens: int | None):
    observed.listener(decided(input_tokens=tokens, output_tokens=tokens))
    metrics = observed.metrics()
    (used,) = points(metrics["gen_ai.client.inference.usage.input_tokens"])
    assert used.value == 0
    assert "gen_ai.client.token.usage" not in metrics
    assert "gen_ai.client.inference.operation.input_tokens" not in metrics


def test_escalations_are_counted_by_the_class_of_their_reason(observed: Observed):
    observed.listener(decided())
    observed.listener(escalated())
    observed.listener(escalated(reason="arguments of tool book: city is missing"))
    (point,) = points(observed.metrics()["langchain_slm.escalations"])
    assert point.value == 2
    assert point.attributes["langchain_slm.reason"] == "arguments of tool book"
    assert point.attributes["langchain_slm.site"] == "triage"
    assert point.attributes["gen_ai.request.model"] == "gpt-ref"


def test_costs_are_summed_in_dollars(
    observed: Observed, caplog: pytest.LogCaptureFixture
):
    for usd in (0.25, 0.5, None, float("nan"), -1.0):
        observed.listener(decided(usd=usd))
    assert not caplog.records
    (point,) = points(observed.metrics()["langchain_slm.cost"])
    assert point.value == 0.75


# Content, providers, the extra


@pytest.mark.parametrize(
    "request_made", [decided(), escalated(), decided(error="EndpointError", reason="x")]
)
def test_no_span_and_no_metric_has_a_place_for_content(
    observed: Observed, request_made: Decided, monkeypatch: pytest.MonkeyPatch
):
    # What switches content on in other instrumentations.
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    observed.listener(request_made)
    span = observed.span()
    slots = [name for name in Decided._fields if name != "asked"]
    known = {getattr(request_made, name) for name in slots} | {request_made.attempts}
    named = {"chat", "arguments of tool book", "input", "output", "unknown"}
    assert (span.events, span.links, span.status.description) == ((), (), None)
    assert set(span.attributes.values()) <= known | named
    for metric in observed.metrics().values():
        for point in points(metric):
            assert set(point.attributes.values()) <= known | named
            assert not point.exemplars


def test_without_providers_the_global_ones_are_used(monkeypatch: pytest.MonkeyPatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    OpenTelemetryListener()(escalated())
    assert [span.name for span in exporter.get_finished_spans()] == ["chat gpt-ref"]


def test_where_no_provider_is_set_nothing_happens():
    assert OpenTelemetryListener()(escalated()) is None


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.metrics"])
def test_a_missing_api_names_the_extra(monkeypatch: pytest.MonkeyPatch, missing: str):
    monkeypatch.setitem(sys.modules, missing, None)
    # A submodule that was imported before is also an attribute of its package.
    if missing != "opentelemetry":
        monkeypatch.delattr(sys.modules["opentelemetry"], "metrics")
    with pytest.raises(
        MissingExtraError, match=re.escape("pip install 'langchain-slm[otel]'")
    ) as raised:
        OpenTelemetryListener()
    assert raised.value.fields == {"extra": "otel"}
