"""Heads: closed-set classifiers on TF-IDF features that answer as chat models.

A head is trained with scikit-learn (extra `convert`) and run without it: its artefact is
JSON, its inference pure Python, and nothing is ever unpickled. It reads the text that
varies at a site and nothing else: no system prompt, image or tool call. It refuses to
guess: below its threshold, or where it knows no word of the input, it abstains.

The artefact holds words and word pairs that occur in at least two examples: it deserves
the care that the store gets.
"""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cached_property
from operator import mul
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    UsageMetadata,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, FiniteFloat, ValidationError, model_validator
from typing_extensions import override

from langchain_slm.errors import NoExamplesError, PlanError
from langchain_slm.schema import (
    Artefact,
    Example,
    Frozen,
    JsonObject,
    SplitName,
    canonical_json,
    content_hash,
)
from langchain_slm.specialization.tfidf import fit, softmax, terms_of
from langchain_slm.stats import hoeffding_bentkus_p_value

# Below it a rarer label has hardly a word that occurs twice.
MIN_EXAMPLES = 30
# Bounds the slowest answer to some 20 ms, whatever a tool returned.
MAX_CHARACTERS = 100_000

# Thresholds from strict to lenient, fixed before any data is seen. The last is above 0,
# the confidence of an input without a known word, so that one is never answered.
GRID = (0.999, 0.995, *(percent / 100 for percent in range(99, 0, -1)))
# Inside the 5-point margin, and not too strict to be of use: 200 examples may hold one
# confident error and 76 suffice without one. At 0.02 a single error in 200 spoils the
# certificate; at 0.05 the true risk came to 2-4 %, too near the margin to be proven soon.
DEFAULT_RISK = 0.03

_INSTRUCTION_ROLES = frozenset({"system", "developer"})


class Head(Frozen):
    """A linear classifier over a closed set of answers.

    Attributes:
        format_version: Of the artefact.
        labels: The answers it can give, at least 2.
        vocabulary: Its terms: words and word pairs.
        idf: Inverse document frequency of each term, above 0.
        weights: Shape (n_labels, n_terms).
        bias: One per label.
        threshold: Least confidence, in (0, 1], at which it answers.
        certified: Whether the threshold bounds the risk; see `calibrate`.
        risk: The cap on P(answered and wrong); None before calibration.
        seed: Of the training.
        trained_on: Examples learned from.
        training_hash: `content_hash` of the sorted ids of all examples given to training.
    """

    format_version: Literal[1] = 1
    labels: tuple[str, ...] = Field(min_length=2, repr=False)
    vocabulary: tuple[str, ...] = Field(min_length=1, repr=False)
    idf: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = Field(repr=False)
    weights: tuple[tuple[FiniteFloat, ...], ...] = Field(repr=False)
    bias: tuple[FiniteFloat, ...] = Field(repr=False)
    threshold: float = Field(default=GRID[0], gt=0, le=1)
    certified: bool = False
    risk: float | None = None
    seed: int = 0
    trained_on: int
    training_hash: str

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        terms, labels = len(self.vocabulary), len(self.labels)
        rows = {len(row) for row in self.weights}
        if (len(self.idf), len(self.weights), len(self.bias)) != (terms, labels, labels):
            msg = f"shapes of {labels} labels and {terms} terms do not agree"
            raise ValueError(msg)
        if rows != {terms}:
            msg = f"needs {terms} weights per label, not {sorted(rows)}"
            raise ValueError(msg)
        return self

    @cached_property
    def _table(self) -> dict[str, tuple[float, tuple[float, ...]]]:
        """Term -> (idf, one weight per label)."""
        columns = zip(self.idf, zip(*self.weights, strict=True), strict=True)
        return dict(zip(self.vocabulary, columns, strict=True))

    def probabilities(self, text: str) -> tuple[float, ...] | None:
        """Return the probability of each label; None where no term of `text` is known."""
        table = self._table
        counts = Counter(term for term in terms_of(text) if term in table)
        if not counts:
            return None
        values = [(1 + math.log(n)) * table[term][0] for term, n in counts.items()]
        rows = zip(*(table[term][1] for term in counts), strict=True)
        norm = math.hypot(*values)
        return softmax(
            [
                bias + sum(map(mul, values, row)) / norm
                for bias, row in zip(self.bias, rows, strict=True)
            ]
        )

    def predict(self, text: str) -> tuple[str, float]:
        """Return the most probable label and its probability.

        The probability is 0 where no term of `text` is known, and the label then the
        most probable one of any text: the head knows nothing of this one.
        """
        probabilities = self.probabilities(text)
        if probabilities is None:
            return self.labels[self.bias.index(max(self.bias))], 0.0
        confidence = max(probabilities)
        return self.labels[probabilities.index(confidence)], confidence


def input_text(messages: Sequence[JsonObject]) -> str:
    """Return the text that varies at a site: all messages but the instructions.

    Args:
        messages: OpenAI chat messages. Only text is read: not images, tool calls or
            names. Of a very long input the end is kept, where the latest message is.
    """
    texts = (
        _content_text(message.get("content"))
        for message in messages
        if message.get("role") not in _INSTRUCTION_ROLES
    )
    return "\n".join(texts)[-MAX_CHARACTERS:]


def train_head(
    examples: Sequence[Example], *, labels: Sequence[str], seed: int = 0
) -> Head:
    """Train a head on a site's examples; it abstains almost always until calibrated.

    It learns the reference's answers. An example whose answer, trimmed, is not one of
    `labels` teaches nothing and is skipped. The order of the examples does not matter.

    Args:
        examples: The train split of one task.
        labels: The closed set; the head answers exactly one of these texts.
        seed: Stored, and handed to the solver (today's, lbfgs, draws nothing).

    Raises:
        MissingExtraError: If scikit-learn is not installed.
        NoExamplesError: With fewer than `MIN_EXAMPLES` usable examples, fewer than 2
            labels seen, or no words that examples share.
        ValueError: If an example is not of the train split.
    """
    _check_split(examples, "train")
    closed = _by_trimmed_text(labels)
    ordered = sorted(examples, key=lambda example: example.example_id)
    answers = [(example, _label_of(example, closed)) for example in ordered]
    usable = [(example, label) for example, label in answers if label is not None]
    learned = {label for _, label in usable}
    seen = [label for label in closed.values() if label in learned]
    if len(usable) < MIN_EXAMPLES or len(seen) < 2:  # noqa: PLR2004 - a choice needs two
        raise _too_few(given=len(ordered), usable=len(usable), labels_seen=len(seen))
    fitted = fit(
        [input_text(example.request.messages) for example, _ in usable],
        [seen.index(label) for _, label in usable],
        n_labels=len(seen),
        seed=seed,
    )
    return Head(
        labels=tuple(seen),
        **fitted._asdict(),
        seed=seed,
        trained_on=len(usable),
        training_hash=content_hash([example.example_id for example in ordered]),
    )


def calibrate(
    head: Head,
    examples: Sequence[Example],
    *,
    risk: float = DEFAULT_RISK,
    delta: float = 0.1,
) -> Head:
    """Return `head` with the most lenient threshold that keeps its risk below `risk`.

    The risk is P(answered and wrong) over all calls of the site; wrong is any answer but
    the reference's. Learn-then-Test: the thresholds of `GRID` are tested from strict to
    lenient until one cannot be certified. Then P(risk of the returned head > `risk`) <=
    `delta` for independent examples, so one example per thread is used, the first; and
    for calls like them: it says nothing of traffic that has drifted.

    Where not even the strictest threshold is certified (with the defaults: fewer than 76
    threads), the head keeps that one and `certified` is False.

    Args:
        head: A trained head.
        examples: The validation split of its task.
        risk: Cap on the risk, in (0, 1).
        delta: Probability of breaking the cap, in (0, 1).

    Raises:
        ValueError: If an example is not of the validation split, or `risk` or `delta`
            is outside its range.

    Source:
        Angelopoulos et al. (2021), Learn then Test, arXiv 2110.01052.
    """
    _check_split(examples, "validation")
    if not (0 < risk < 1 and 0 < delta < 1):
        msg = f"risk and delta must be in (0, 1), not {risk} and {delta}"
        raise ValueError(msg)
    by_thread = {example.thread_id: example for example in reversed(examples)}
    wrong = _confidences_of_errors(head, list(by_thread.values()))
    certified = None
    for threshold in GRID if by_thread else ():
        losses = sum(confidence >= threshold for confidence in wrong)
        if hoeffding_bentkus_p_value(losses, len(by_thread), risk=risk) > delta:
            break
        certified = threshold
    return head.model_copy(
        update={
            "threshold": GRID[0] if certified is None else certified,
            "certified": certified is not None,
            "risk": risk,
        }
    )


def save_head(head: Head, folder: Path) -> Artefact:
    """Write `head` into `folder` under a name made of its content's hash.

    The file appears whole or not at all; the folder is created where it is missing.

    Returns:
        The artefact, its path relative to `folder`.

    Raises:
        PlanError: If the file cannot be written.
    """
    content = canonical_json(head.model_dump(mode="json")).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / f"head-{sha256[:12]}.json"
    try:
        _write_atomically(path, content)
    except OSError as error:
        msg = (
            f"{path}: cannot write the head ({error.strerror}). Choose a folder that can "
            "be written and has space."
        )
        raise PlanError(msg, path=str(path)) from error
    return Artefact(kind="head", path=path.name, sha256=sha256)


def load_head(path: Path, sha256: str) -> Head:
    """Read the head at `path`, whose bytes must have the hash `sha256`.

    Raises:
        PlanError: If the file cannot be read, has another hash, or is no head that this
            version knows.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise _unusable(path, reason) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        reason = f"has sha256 {found[:12]}, the plan says {sha256[:12]}"
        raise _unusable(path, reason)
    try:
        head = Head.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the file"
        reason = f"is no head that this version reads ({where} is wrong)"
        # `from None`: pydantic quotes its input, which holds words of the examples.
        raise _unusable(path, reason) from None
    head.predict("")  # builds its table now, not within the first call
    return head


class HeadChatModel(BaseChatModel):
    """A head behind the chat-model interface: in process, no network, no tokens.

    It answers a label as text whatever else was asked: tools, response format, stop
    sequences and sampling parameters change nothing. When it abstains the content is
    empty and `response_metadata["abstained"]` is True; `response_metadata["confidence"]`
    is always there.

    Attributes:
        head: What answers.
        name: The model's name in plans, metadata and traces.
    """

    head: Head
    name: str

    @property
    def _llm_type(self) -> str:
        return "langchain-slm-head"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {
            "model_name": self.name,
            "training_hash": self.head.training_hash,
            "labels": len(self.head.labels),
            "seed": self.head.seed,
            "threshold": self.head.threshold,
        }

    @override
    def _get_ls_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> LangSmithParams:
        return LangSmithParams(
            ls_provider="head", ls_model_name=self.name, ls_model_type="chat"
        )

    def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        label, confidence = self.head.predict(input_text(_as_objects(messages)))
        abstains = confidence < self.head.threshold
        metadata = {
            "model_name": self.name,
            "model_provider": "head",
            "finish_reason": "stop",
            "confidence": confidence,
            **({"abstained": True} if abstains else {}),
        }
        return AIMessage(
            content="" if abstains else label,
            response_metadata=metadata,
            usage_metadata=UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0),
        )

    def _chunk(self, messages: list[BaseMessage]) -> ChatGenerationChunk:
        reply = self._reply(messages)
        message = AIMessageChunk(
            content=reply.content,
            response_metadata=reply.response_metadata,
            usage_metadata=reply.usage_metadata,
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message)

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages))])

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # No thread: the hop costs more than the answer.
        return self._generate(messages)

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chunk = self._chunk(messages)
        if run_manager:
            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunk = self._chunk(messages)
        if run_manager:
            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk


def _content_text(content: object) -> str:
    """Return the text of an OpenAI message's content: a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


def _as_objects(messages: list[BaseMessage]) -> list[JsonObject]:
    """Return what `input_text` reads of LangChain's messages."""
    return [
        {
            "role": message.role if isinstance(message, ChatMessage) else message.type,
            "content": message.content,
        }
        for message in messages
    ]


def _by_trimmed_text(labels: Sequence[str]) -> dict[str, str]:
    """Return trimmed label -> label, but the empty one: it would read as abstention."""
    return {label.strip(): label for label in labels if label.strip()}


def _label_of(example: Example, closed: Mapping[str, str]) -> str | None:
    """Return the label that the reference answered; None where it did something else."""
    if example.answer.tool_calls:
        return None
    return closed.get(example.answer.text.strip())


def _confidences_of_errors(head: Head, examples: Sequence[Example]) -> list[float]:
    """Return the head's confidence in each answer that is not the reference's."""
    closed = _by_trimmed_text(head.labels)
    predictions = [head.predict(input_text(e.request.messages)) for e in examples]
    return [
        confidence
        for example, (label, confidence) in zip(examples, predictions, strict=True)
        if label != _label_of(example, closed)
    ]


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_split(examples: Sequence[Example], split: SplitName) -> None:
    """Refuse examples of another split: the test split must never be learned from."""
    others = sum(example.split != split for example in examples)
    if others:
        msg = f"{others} of {len(examples)} examples are not of the {split} split"
        raise ValueError(msg)


def _too_few(*, given: int, usable: int, labels_seen: int) -> NoExamplesError:
    msg = (
        f"head: {usable} of {given} training examples answer with a label, "
        f"{labels_seen} labels seen; needs {MIN_EXAMPLES} examples and 2 labels. "
        "Record more calls or keep the reference."
    )
    return NoExamplesError(msg, given=given, usable=usable, labels_seen=labels_seen)


def _unusable(path: Path, reason: str) -> PlanError:
    msg = f"{path}: the head {reason}. Restore the file, or run convert again."
    return PlanError(msg, path=str(path))
