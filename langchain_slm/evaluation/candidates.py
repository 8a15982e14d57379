"""Who may take a reference's place at a task: catalogue models, and heads trained for it.

A head is trained on the train split and calibrated on the validation split; it never
sees a test example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from langchain_core.language_models import BaseChatModel

from langchain_slm.catalog import price_from_genai_prices
from langchain_slm.curation import Dataset
from langchain_slm.errors import CatalogError, NoExamplesError
from langchain_slm.evaluation.experiment import Candidate
from langchain_slm.schema import Binding, Example, ModelSpec, SplitName, Task
from langchain_slm.specialization.heads import (
    HeadChatModel,
    calibrate,
    save_head,
    train_head,
)

HEADS_FOLDER = "slm-heads"
_BUILT_FROM: tuple[SplitName, SplitName] = ("train", "validation")
HEAD = ModelSpec(
    name="head",
    provider="head",
    model="tfidf-logistic",
    usd_per_million_input_tokens=0.0,
    usd_per_million_output_tokens=0.0,
)


def reference_of(
    task: Task, examples: Sequence[Example], models: Sequence[ModelSpec]
) -> ModelSpec:
    """Return the model that a task calls today, with its price.

    The one that answered most of its examples: an app's own backup model is not what is
    replaced. Its price is the catalogue's, else that of genai-prices, else unknown.
    """
    own = Counter((e.model, e.provider) for e in examples if e.task == task.task_id)
    (name, provider), _ = max(own.items(), key=lambda item: (item[1], item[0]))
    for spec in models:
        if name in (spec.model, spec.name):
            return spec.model_copy(update={"name": name})
    listed = price_from_genai_prices(provider, name) or (None, None)
    return ModelSpec(
        name=name,
        provider=provider,
        model=name,
        usd_per_million_input_tokens=listed[0],
        usd_per_million_output_tokens=listed[1],
    )


def catalogue_candidates(
    task: Task,
    reference: ModelSpec,
    models: Sequence[ModelSpec],
    chat_model: Callable[[ModelSpec], BaseChatModel],
) -> list[Candidate]:
    """Return every model of the catalogue but the reference, as it is.

    Raises:
        CatalogError: If two models have one name, or one has the name of heads.
    """
    names = Counter([HEAD.name, *(spec.name for spec in models)])
    name, n = names.most_common(1)[0]
    if n > 1:
        other = "is that of heads" if name == HEAD.name else "occurs twice"
        msg = f"model {name!r}: the name {other}; give it another in the catalogue"
        raise CatalogError(msg, model=name)
    return [
        Candidate(
            spec.name, Binding(model=spec, labels=_closed_set(task)), chat_model(spec)
        )
        for spec in models
        if reference.name not in (spec.name, spec.model)
    ]


def head_candidate(
    task: Task, dataset: Dataset, reference: ModelSpec, folder: Path
) -> Candidate | None:
    """Return a head trained for a task with a closed set of answers, saved in `folder`.

    Returns:
        None where the answers are no closed set, or too few to learn from.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
        PlanError: If the head cannot be written.
    """
    if not task.labels:
        return None
    train, validation = (
        [e for e in dataset.examples_of(task.task_id, split) if e.model == reference.name]
        for split in _BUILT_FROM
    )
    try:
        head = train_head(train, labels=task.labels, seed=dataset.seed)
    except NoExamplesError:
        return None
    head = calibrate(head, validation)
    artefact = save_head(head, folder / HEADS_FOLDER)
    relative = artefact.model_copy(update={"path": f"{HEADS_FOLDER}/{artefact.path}"})
    binding = Binding(model=HEAD, artefact=relative, labels=task.labels)
    model = HeadChatModel(head=head, name=HEAD.name)
    seen = frozenset(example.thread_id for example in (*train, *validation))
    return Candidate(HEAD.name, binding, model, built_from=seen)


def _closed_set(task: Task) -> tuple[str, ...]:
    # A structured answer is checked against its schema; its text may be spaced at will.
    return task.labels if task.shape == "label" else ()
