"""Requests as OpenTelemetry spans and metrics. No content, whatever is switched on.

Read were the conventions for generative AI of OpenTelemetry's semantic conventions
1.41, the last version with them, and in November 2026 the guide for migration to their
own repository, open-telemetry/semantic-conventions-genai, whose first release is 0.1.0.
What is used here of spans is the same in both. Metrics were renamed, and are recorded
under both names while what reads them moves on:

    1.41                                0.1.0
    gen_ai.client.operation.duration    gen_ai.client.inference.duration
    gen_ai.client.token.usage           gen_ai.client.inference.operation.*_tokens
                                        gen_ai.client.inference.usage.*_tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from langchain_slm.errors import MissingExtraError
from langchain_slm.routing.counters import Decided, kind, known

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter, MeterProvider
    from opentelemetry.trace import TracerProvider

Attributes: TypeAlias = dict[str, str | bool | int | float]
SCOPE = "langchain_slm"  # of the instruments; the prefix of our own attributes
# Bucket boundaries that the conventions recommend.
DURATIONS_S = [0.01 * 2**n for n in range(14)]
TOKENS = [4**n for n in range(14)]
# LangChain's names of providers for which the conventions prescribe another.
PROVIDERS: Mapping[str, str] = {
    "aws": "aws.bedrock",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
}


class OpenTelemetryListener:
    """Records each request of a router as one span and in metrics.

    The span is a child of the span that is current where the router is called. It is
    made when the request has ended: spans of an instrumented HTTP client are its
    siblings.

    Args:
        tracer_provider: Where spans go; None for the global provider.
        meter_provider: Where metrics go; None for the global provider.

    Raises:
        MissingExtraError: If the OpenTelemetry API is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace  # noqa: PLC0415 - an extra
        except ImportError as error:
            msg = (
                "OpenTelemetryListener needs the OpenTelemetry API: "
                "pip install 'langchain-slm[otel]'"
            )
            raise MissingExtraError(msg, extra="otel") from error
        self._client = trace.SpanKind.CLIENT
        self._error = trace.Status(trace.StatusCode.ERROR)
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._metrics = _Metrics(metrics.get_meter(SCOPE, meter_provider=meter_provider))

    def __call__(self, decided: Decided) -> None:
        """Record one request."""
        start = int(decided.started_s * 1e9)
        span = self._tracer.start_span(
            f"chat {decided.model}",
            kind=self._client,
            attributes=_attributes(decided),
            start_time=start,
        )
        if decided.error is not None:
            span.set_status(self._error)
        span.end(start + int(decided.latency_s * 1e9))
        self._metrics.record(decided)


class _Metrics:
    """The instruments, made once."""

    def __init__(self, meter: Meter) -> None:
        self._durations = (
            _durations(meter, "gen_ai.client.operation.duration"),
            _durations(meter, "gen_ai.client.inference.duration"),
        )
        self._usage = _tokens(meter, "gen_ai.client.token.usage")
        inference = "gen_ai.client.inference"
        self._tokens = {
            way: (
                _tokens(meter, f"{inference}.operation.{way}_tokens"),
                meter.create_counter(f"{inference}.usage.{way}_tokens", "{token}"),
            )
            for way in ("input", "output")
        }
        self._escalations = meter.create_counter(
            f"{SCOPE}.escalations", "{escalation}", "Requests that the reference got."
        )
        self._cost = meter.create_counter(
            f"{SCOPE}.cost", "{USD}", "Dollars of the requests of known cost."
        )

    def record(self, decided: Decided) -> None:
        common = {**_common(decided), f"{SCOPE}.site": decided.site}
        timed = (
            common if decided.error is None else {**common, "error.type": decided.error}
        )
        for durations in self._durations:
            durations.record(decided.latency_s, timed)
        self._count("input", known(decided.input_tokens), common)
        self._count("output", known(decided.output_tokens), common)
        if decided.escalated:
            reason = {f"{SCOPE}.reason": kind(decided.reason)}
            self._escalations.add(1, {**common, **reason})
        if (usd := known(decided.usd)) is not None:
            self._cost.add(usd, common)

    def _count(self, way: str, tokens: int | None, common: Attributes) -> None:
        per_operation, used = self._tokens[way]
        # The convention for a usage that is not known, too.
        used.add(tokens or 0, {**common, "gen_ai.token.modality": "unknown"})
        if tokens is not None:
            per_operation.record(tokens, common)
            self._usage.record(tokens, {**common, "gen_ai.token.type": way})


def _durations(meter: Meter, name: str) -> Histogram:
    return meter.create_histogram(
        name,
        unit="s",
        description="GenAI operation duration.",
        explicit_bucket_boundaries_advisory=DURATIONS_S,
    )


def _tokens(meter: Meter, name: str) -> Histogram:
    return meter.create_histogram(
        name,
        unit="{token}",
        description="Number of tokens used.",
        explicit_bucket_boundaries_advisory=TOKENS,
    )


def _common(decided: Decided) -> Attributes:
    """Return the attributes of spans and metrics alike."""
    common: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": PROVIDERS.get(decided.provider, decided.provider),
        "gen_ai.request.model": decided.model,
    }
    if decided.error is None:
        common["gen_ai.response.model"] = decided.model
    return common


def _attributes(decided: Decided) -> Attributes:
    """Return the attributes of the span; what is unknown has none."""
    stated = {
        "gen_ai.request.stream": decided.streamed or None,  # only where it is true
        "gen_ai.usage.input_tokens": known(decided.input_tokens),
        "gen_ai.usage.output_tokens": known(decided.output_tokens),
        "error.type": decided.error,
        f"{SCOPE}.site": decided.site,
        f"{SCOPE}.task": decided.task,
        f"{SCOPE}.bound": decided.bound,
        f"{SCOPE}.rule": decided.rule,
        f"{SCOPE}.plan": decided.plan,
        f"{SCOPE}.escalated": decided.escalated,
        f"{SCOPE}.reason": decided.reason,
        f"{SCOPE}.usd": known(decided.usd),
        f"{SCOPE}.failed_usd": known(decided.failed_usd),
        f"{SCOPE}.attempts": decided.attempts,
    }
    attributes = _common(decided)
    attributes.update({k: v for k, v in stated.items() if v is not None})
    return attributes
