import sys

import pytest
from langchain_core.language_models import BaseChatModel
from unit_tests.fake_chat import FakeChat
from unit_tests.held_out import REFERENCE, TASK, dataset, example, examples

from langchain_slm.errors import CatalogError, MissingExtraError
from langchain_slm.evaluation.candidates import (
    HEAD,
    catalogue_candidates,
    head_candidate,
    reference_of,
)
from langchain_slm.schema import ModelSpec, Task
from langchain_slm.specialization.heads import load_head


def spec(name: str, model: str | None = None, **more: object) -> ModelSpec:
    described = {"name": name, "provider": "openai", "model": model or name, **more}
    return ModelSpec.model_validate(described)


def made(_: ModelSpec) -> BaseChatModel:
    return FakeChat()


# The reference


def test_the_reference_is_the_model_that_answered_most_of_the_task():
    own = [example(1, model="backup"), example(2), example(3)]
    of_others = [
        example(number, model="other").model_copy(update={"task": "reply"})
        for number in range(4, 9)
    ]
    assert reference_of(TASK, own + of_others, []).name == "ref"


def test_of_two_that_answered_as_often_the_choice_does_not_depend_on_the_order():
    one, two = example(1, model="a"), example(2, model="b")
    assert reference_of(TASK, [one, two], []) == reference_of(TASK, [two, one], [])


def test_the_price_of_the_reference_is_the_catalogues_by_either_name():
    listed = [
        spec("big", "ref", usd_per_million_input_tokens=7),
        spec("other", usd_per_million_input_tokens=1),
    ]
    found = reference_of(TASK, [example(1)], listed)
    assert (found.name, found.usd_per_million_input_tokens) == ("ref", 7)
    by_name = [spec("ref", "ref-2024", usd_per_million_input_tokens=8)]
    assert reference_of(TASK, [example(1)], by_name).usd_per_million_input_tokens == 8


def test_the_price_of_an_unlisted_reference_is_its_list_price_or_unknown():
    known = reference_of(TASK, [example(1, model="gpt-4o-mini")], [])
    assert known.usd_per_million_input_tokens == pytest.approx(0.15)
    unknown = reference_of(TASK, [example(1)], [])
    assert unknown.usd_per_million_input_tokens is None
    assert (unknown.provider, unknown.model) == ("openai", "ref")


# The catalogue


def test_every_model_of_the_catalogue_is_a_candidate_but_the_reference():
    models = [spec("a"), spec("big", "ref"), spec("ref", "ref-2024"), spec("b")]
    asked: list[str] = []

    def make(each: ModelSpec) -> BaseChatModel:
        asked.append(each.name)
        return FakeChat()

    found = catalogue_candidates(TASK, REFERENCE, models, make)
    assert [each.name for each in found] == asked == ["a", "b"]
    assert [each.binding.model for each in found] == [models[0], models[3]]
    assert found[0].built_from == frozenset()


def test_a_bound_label_must_belong_to_the_closed_set_and_other_answers_need_not():
    (found,) = catalogue_candidates(TASK, REFERENCE, [spec("a")], made)
    assert found.binding.labels == ("no", "yes")
    structured = Task(
        task_id="triage", site="triage", shape="structured", labels=('{"a": 1}',)
    )
    (found,) = catalogue_candidates(structured, REFERENCE, [spec("a")], made)
    assert found.binding.labels == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "a"], "model 'a': the name occurs twice; give it another"),
        (["a", "head"], "model 'head': the name is that of heads; give it another"),
    ],
)
def test_two_candidates_of_one_name_are_refused(names, message):
    with pytest.raises(CatalogError, match=message):
        catalogue_candidates(TASK, REFERENCE, [spec(name) for name in names], made)


# Heads

SPLITS = [
    *examples(200, split="train"),
    *examples(100, split="validation", first=200),
    *examples(50, first=300),
]


def test_a_head_is_built_from_train_and_validation_threads_only(tmp_path):
    of_another = example(900, split="train", model="backup")
    head = head_candidate(TASK, dataset([*SPLITS, of_another]), REFERENCE, tmp_path)
    assert head is not None
    assert head.built_from == {f"t{number}" for number in range(300)}
    assert head.binding.model == HEAD
    assert head.binding.labels == ("no", "yes")
    assert (HEAD.usd_per_million_input_tokens, HEAD.usd_per_million_output_tokens) == (
        0,
        0,
    )


def test_a_head_is_saved_beside_the_plan_under_the_path_that_its_binding_names(tmp_path):
    head = head_candidate(TASK, dataset(SPLITS), REFERENCE, tmp_path)
    assert head is not None
    artefact = head.binding.artefact
    assert artefact is not None
    assert artefact.path.startswith("slm-heads/head-")
    loaded = load_head(tmp_path / artefact.path, artefact.sha256)
    assert loaded.trained_on == 200
    assert loaded.model_dump() == head.model.head.model_dump()  # type: ignore[attr-defined]


def test_a_head_that_would_learn_from_test_examples_is_refused(tmp_path):
    """Even where a dataset hands them out as training examples."""

    class Cheating:
        seed = 0

        def examples_of(self, *_: object) -> list[object]:
            return list(examples(60, split="test"))

    with pytest.raises(ValueError, match="train"):
        head_candidate(TASK, Cheating(), REFERENCE, tmp_path)  # type: ignore[arg-type]


def test_no_head_is_trained_without_a_closed_set_or_with_too_few_examples(tmp_path):
    text = Task(task_id="triage", site="triage", shape="text")
    assert head_candidate(text, dataset(SPLITS), REFERENCE, tmp_path) is None
    few = dataset(examples(20, split="train"))
    assert head_candidate(TASK, few, REFERENCE, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_without_its_extra_a_head_says_what_to_install(tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"install 'langchain-slm\[convert\]'"):
        head_candidate(TASK, dataset(SPLITS), REFERENCE, tmp_path)
