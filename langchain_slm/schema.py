"""The types that stages hand to each other.

Pure: no I/O, clock, environment or framework. Messages, tools and response formats are
plain dicts in the form of the OpenAI chat API, whatever the provider was;
`routing.dialect` converts.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

JsonObject: TypeAlias = dict[str, Any]
SplitName: TypeAlias = Literal["train", "validation", "test"]
Shape: TypeAlias = Literal["tool_call", "label", "structured", "json", "text"]
DecisionName: TypeAlias = Literal["proven", "provisional", "kept"]

PLAN_FORMAT_VERSION = 1
DEEPEST_SCHEMA = 32  # a schema may refer to itself
MOST_TOKENS = 1e9  # no context is a thousandth as long: beyond it a count is an error


def canonical_json(value: object) -> str:
    """Return `value` as JSON that is equal for equal values.

    Keys are sorted, no blanks, ASCII only (so that a lone surrogate survives as its
    escape instead of failing at the next UTF-8 encoder).
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def content_hash(value: object) -> str:
    """Return the SHA-256 of `canonical_json(value)` as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def field_names(schema: object, *, root: object = None, depth: int = 0) -> JsonObject:
    """Return the names of the fields that a JSON schema describes, nested.

    That is what stays of a schema on its way to a provider, whose client adds
    strictness, titles and required fields, and resolves references.
    """
    if not isinstance(schema, dict) or depth > DEEPEST_SCHEMA:
        return {}
    root = schema if root is None else root
    reference = schema.get("$ref")
    if isinstance(reference, str) and isinstance(root, dict):
        tables = (root.get("$defs"), root.get("definitions"))
        name = reference.rpartition("/")[2]
        found = [t[name] for t in tables if isinstance(t, dict) and name in t]
        return field_names(found[0], root=root, depth=depth + 1) if found else {}
    fields: JsonObject = {}
    parts = [schema.get("items")]
    for choice in (schema.get("anyOf"), schema.get("allOf"), schema.get("oneOf")):
        parts += choice if isinstance(choice, list) else []
    for part in parts:
        fields |= field_names(part, root=root, depth=depth + 1)
    properties = schema.get("properties")
    for name, part in properties.items() if isinstance(properties, dict) else ():
        fields[name] = field_names(part, root=root, depth=depth + 1)
    return fields


class Frozen(BaseModel):
    """A value: immutable, and without fields that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(Frozen):
    """Tokens of one call; None is unknown, never zero."""

    input_tokens: int | None = None
    output_tokens: int | None = None

    @field_validator("input_tokens", "output_tokens", mode="before")
    @classmethod
    def _implausible_is_unknown(cls, value: object) -> object:
        """NaN, negative and absurd counts are unknown (providers do send them)."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value) or not 0 <= value < MOST_TOKENS:
            return None
        return int(value)


class Request(Frozen):
    """What a model was asked: all that decides its answer but the model itself.

    Attributes:
        messages: OpenAI chat messages, in order.
        tools: OpenAI function tools offered, in order.
        tool_choice: As in the OpenAI API; None where the call set none.
        response_format: As in the OpenAI API, a JSON schema included.
        parameters: Sampling parameters (temperature, max_tokens, stop, ...).
    """

    messages: tuple[JsonObject, ...] = Field(repr=False)
    tools: tuple[JsonObject, ...] = Field(default=(), repr=False)
    tool_choice: str | JsonObject | None = None
    response_format: JsonObject | None = Field(default=None, repr=False)
    parameters: JsonObject = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of messages and tools: the identity of the question."""
        return content_hash([self.messages, self.tools])


class Answer(Frozen):
    """What a model answered.

    Attributes:
        message: OpenAI assistant message: `content` and/or `tool_calls` whose
            `arguments` are JSON strings.
        finish_reason: As the provider said it; None where it said nothing.
        usage: Tokens as the provider counted them.
        abstained: The model declined to answer (a head that is unsure).
        confidence: The model's own, in [0, 1]; None where it reports none. Of the
            moment: it is not stored.
    """

    message: JsonObject = Field(repr=False)
    finish_reason: str | None = None
    usage: Usage = Usage()
    abstained: bool = False
    confidence: float | None = Field(default=None, exclude=True)

    @field_validator("confidence", mode="before")
    @classmethod
    def _implausible_is_unknown(cls, value: object) -> object:
        """What is no number in [0, 1] is unknown (endpoints send anything)."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if 0 <= value <= 1 else None

    @property
    def text(self) -> str:
        """The answer's text; empty where it only calls tools."""
        content = self.message.get("content")
        if isinstance(content, str):
            return content
        parts = content if isinstance(content, list) else []
        return "".join(
            str(part.get("text", "")) for part in parts if isinstance(part, dict)
        )

    @property
    def tool_calls(self) -> list[JsonObject]:
        """The function part (`name`, `arguments` as a JSON string) of each tool call."""
        calls = self.message.get("tool_calls") or []
        return [call.get("function", {}) for call in calls if isinstance(call, dict)]


class Call(Frozen):
    """One call of a model at a site, as recorded.

    Attributes:
        call_id: Unique id of this call.
        trace_id: The graph invocation that it belongs to.
        thread_id: The conversation that the trace belongs to.
        graph: Name of the graph.
        site: Where the model was called: node path, `#branch` for a conditional edge.
        sequence: Order within the store, ascending; never a wall-clock time.
        model: Name of the model that was called.
        provider: LangChain's name of the provider ("openai", "nvidia", ...).
        request: What was asked.
        answer: What came back; None when the call failed.
        error: Type and redacted message of the failure; None when it succeeded.
        latency_s: Seconds from the request to the complete answer.
        attempt: Checkpoint namespace of the node run; the same again on a resume.
    """

    call_id: str
    trace_id: str
    thread_id: str
    graph: str
    site: str
    sequence: int = 0
    model: str
    provider: str
    request: Request
    answer: Answer | None = None
    error: str | None = None
    latency_s: float = 0.0
    attempt: str = ""


class Expected(Frozen):
    """What a right answer is.

    Attributes:
        grader: Name of the grading rule, as in a recorded suite, or "agreement".
        reference: What the rule compares with; its form belongs to the rule.
    """

    grader: str
    reference: JsonObject = Field(repr=False)


class Example(Frozen):
    """A curated call: what a candidate is asked, and what is expected of it."""

    example_id: str
    site: str
    thread_id: str
    split: SplitName
    model: str
    provider: str
    request: Request
    answer: Answer
    expected: Expected | None = None
    task: str = ""


class Task(Frozen):
    """A named cluster of examples of one site, with one evaluator.

    Attributes:
        task_id: Unique in a plan: the site, and `~2`, `~3` for further tasks of it.
        site: Where it is called.
        template: System prompt with its variable parts as `<*>`.
        tools: Names of the tools offered, sorted; `<*>` where they are made at run time.
        response_schema: Hash of the response schema's fields; None where there is none.
        shape: What kind of answer it has.
        labels: The closed set of answer texts, sorted; empty where they form none. A
            structured task may have one, too: whole JSON texts.
        examples: Number of examples.
    """

    task_id: str
    site: str
    template: str = ""
    tools: tuple[str, ...] = ()
    response_schema: str | None = None
    shape: Shape
    labels: tuple[str, ...] = ()
    examples: int = 0


class ModelSpec(Frozen):
    """How to reach a model and what it costs. Never holds a secret.

    Attributes:
        name: The name by which plans and reports call it.
        provider: "openai", "nvidia", "head", or a provider of `init_chat_model`.
        model: The provider's name of the model.
        base_url: Endpoint; None for the provider's own.
        api_key_env: Name of the environment variable that holds the key.
        usd_per_million_input_tokens: Price; None is unknown and never the cheapest.
        usd_per_million_output_tokens: Price; None is unknown and never the cheapest.
    """

    name: str
    provider: str
    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    usd_per_million_input_tokens: float | None = None
    usd_per_million_output_tokens: float | None = None

    @field_validator("usd_per_million_input_tokens", "usd_per_million_output_tokens")
    @classmethod
    def _implausible_is_unknown(cls, value: float | None) -> float | None:
        if value is None or not math.isfinite(value) or value < 0:
            return None
        return value


class Artefact(Frozen):
    """A file that specialises a model, named by its content.

    Attributes:
        kind: "head": closed-set classifier on TF-IDF features.
        path: Relative to the plan's folder.
        sha256: Of the file's bytes.
    """

    kind: Literal["head"]
    path: str
    sha256: str


class Binding(Frozen):
    """What answers at a site instead of the reference.

    Attributes:
        model: The bound model.
        artefact: Its specialisation; None for the model as it is.
        labels: Closed set that its answer must belong to; empty where there is none.
        escalation: "on_invalid" asks the reference when the answer fails its check;
            "never" hands the failure to the app.
    """

    model: ModelSpec
    artefact: Artefact | None = None
    labels: tuple[str, ...] = ()
    escalation: Literal["on_invalid", "never"] = "on_invalid"


class Outcome(Frozen):
    """How reference and candidate did on one held-out example.

    Attributes:
        example_id: The example.
        reference_passed: Whether the reference's answer passed its evaluator.
        candidate_passed: Whether the candidate's did, after escalation.
        usd: Cost of the candidate's answer, escalation included; None is unknown.
        reference_usd: Cost of the reference's answer; None is unknown.
        reason: The evaluator's reason for the candidate.
        escalated: The candidate abstained and the reference answered.
        infrastructure_error: The endpoint failed within its retries; counts as a
            failure of the candidate, and is reported apart.
    """

    example_id: str
    reference_passed: bool
    candidate_passed: bool
    usd: float | None = None
    reference_usd: float | None = None
    reason: str = Field(default="", repr=False)
    escalated: bool = False
    infrastructure_error: bool = False


class Evidence(Frozen):
    """What the held-out examples say of one candidate at one site.

    Attributes:
        candidate: Name of the candidate.
        n: Pairs seen.
        reference_only: Pairs in which only the reference passed (b).
        candidate_only: Pairs in which only the candidate passed (c).
        e_value: Evidence against "worse by the margin or more".
        futility: Evidence against "as good"; 10 drops the candidate.
        reference_pass_rate: In [0, 1].
        candidate_pass_rate: In [0, 1], after escalation.
        usd_per_correct: Dollars per correct answer; None is unknown.
        reference_usd_per_correct: The same of the reference.
        escalations: Pairs in which the candidate abstained.
        infrastructure_errors: Pairs lost to the endpoint.
        verdict: One clause for people: why it was bound, or why not.
    """

    candidate: str
    n: int
    reference_only: int
    candidate_only: int
    e_value: float
    futility: float
    reference_pass_rate: float
    candidate_pass_rate: float
    usd_per_correct: float | None = None
    reference_usd_per_correct: float | None = None
    escalations: int = 0
    infrastructure_errors: int = 0
    verdict: str = ""


class Decision(Frozen):
    """What a site (or one task of it) is bound to, and why.

    Attributes:
        site: Where.
        task: The task of the site that is decided.
        reference: Name of the model that the site calls today.
        decision: proven, provisional or kept.
        model: The candidate chosen when proven or provisional, else the reference.
        reason: For people: why.
        threshold: The e-value that proves, after the union bound.
        needed_n: Pairs that would prove it at the rates seen; None if no number would.
        chosen: Evidence of the candidate chosen or, when kept, of the closest one.
        others: Evidence of the other candidates tried.
        binding: What to call; None when kept.
    """

    site: str
    task: Task | None = None
    reference: str
    decision: DecisionName
    model: str
    reason: str
    threshold: float
    needed_n: int | None = None
    chosen: Evidence | None = None
    others: tuple[Evidence, ...] = ()
    binding: Binding | None = None


class Plan(Frozen):
    """Which model answers where, and the evidence for it.

    Attributes:
        format_version: Of this file; a newer one is refused.
        graph: Name of the graph that it was made for.
        fingerprint: Hash of that graph's nodes and edges; None where it had no graph.
        created: ISO 8601 time, UTC.
        margin: Non-inferiority margin, an absolute difference of pass rates.
        alpha: Bound on the probability that any binding is worse than the margin.
        compared_with: "reference": the reference's own answers were the expected
            ones; "truth": labelled answers were.
        whole_graph: What was shown of the workflow as a whole.
        bind_provisional: Whether provisional decisions are bound, too.
        decisions: One per site and task.
        content_hash: SHA-256 of everything above.
    """

    format_version: int = PLAN_FORMAT_VERSION
    graph: str
    fingerprint: str | None = None
    created: str
    margin: float
    alpha: float
    compared_with: Literal["reference", "truth"] = "reference"
    whole_graph: str = "per node only"
    bind_provisional: bool = False
    decisions: tuple[Decision, ...]
    content_hash: str = ""

    def computed_hash(self) -> str:
        """Return the hash that `content_hash` must equal."""
        return content_hash(self.model_dump(mode="json", exclude={"content_hash"}))

    def sealed(self) -> Plan:
        """Return the plan with its own hash."""
        return self.model_copy(update={"content_hash": self.computed_hash()})

    @property
    def active(self) -> tuple[Decision, ...]:
        """The decisions that bind a model."""
        bound = {"proven", "provisional"} if self.bind_provisional else {"proven"}
        return tuple(d for d in self.decisions if d.decision in bound and d.binding)
