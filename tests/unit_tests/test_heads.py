"""Heads: trained with scikit-learn, run without it, silent when unsure."""

import json
import math
import os
import random
import re
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_slm.errors import MissingExtraError, NoExamplesError, PlanError
from langchain_slm.schema import Answer, Example, Request, content_hash
from langchain_slm.specialization.heads import (
    GRID,
    MAX_CHARACTERS,
    Head,
    HeadChatModel,
    calibrate,
    input_text,
    load_head,
    save_head,
    train_head,
)
from langchain_slm.specialization.tfidf import fit, terms_of

ROOT = Path(__file__).parents[2]
LABELS = ("billing", "login", "shipping")
TOPICS = {
    "billing": "invoice refund charge card payment receipt vat overcharged subscription",
    "login": "password reset account locked verification signin username token expired",
    "shipping": "parcel courier tracking delivery address late warehouse package lost",
}
FILLER = "hello please my the a since yesterday help with about your team still again now"


def example(
    text: str,
    answer: str,
    number: int,
    *,
    split: str = "train",
    thread: str | None = None,
    tool_calls: Sequence[dict[str, object]] = (),
) -> Example:
    message = {"role": "assistant", "content": answer, "tool_calls": list(tool_calls)}
    return Example(
        example_id=f"{split}-{number:04}",
        site="triage",
        thread_id=thread or f"{split}-thread-{number}",
        split=split,
        model="gpt-ref",
        provider="openai",
        request=Request(
            messages=(
                {"role": "system", "content": "Sort the ticket."},
                {"role": "user", "content": text},
            )
        ),
        answer=Answer(message=message),
    )


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - synthetic data


def ticket(rng: random.Random, label: str, *, stray: float = 0.0) -> str:
    """Return a text about `label`; each of its topic words strays with that chance."""
    topics = [
        rng.choice(LABELS) if rng.random() < stray else label
        for _ in range(rng.randint(2, 4))
    ]
    words = [rng.choice(TOPICS[topic].split()) for topic in topics]
    words += rng.choices(FILLER.split(), k=rng.randint(4, 9))
    rng.shuffle(words)
    return " ".join(words)


def tickets(
    n: int, *, seed: int, split: str = "train", stray: float = 0.0, labels=LABELS
) -> list[Example]:
    rng = seeded(seed)
    drawn = [rng.choice(labels) for _ in range(n)]
    return [
        example(ticket(rng, label, stray=stray), label, number, split=split)
        for number, label in enumerate(drawn)
    ]


def head_of_words(confidences: dict[str, float]) -> Head:
    """Return a head that answers "yes" to each word with the confidence given."""
    scores = tuple(math.log(p / (1 - p)) for p in confidences.values())
    return Head(
        labels=("no", "yes"),
        vocabulary=tuple(confidences),
        idf=(1.0,) * len(scores),
        weights=((0.0,) * len(scores), scores),
        bias=(0.0, 0.0),
        trained_on=30,
        training_hash="0" * 64,
    )


@pytest.fixture(scope="module")
def head() -> Head:
    return train_head(tickets(200, seed=1), labels=LABELS)


@pytest.fixture(scope="module")
def calibrated(head: Head) -> Head:
    return calibrate(head, tickets(200, seed=2, split="validation"))


# Input text and terms


def test_the_input_text_is_all_but_the_instructions():
    messages = [
        {"role": "system", "content": "Sort the ticket."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "in the warehouse"},
    ]
    assert input_text(messages) == "Where is it?\n\nin the warehouse"


def test_only_the_text_parts_of_a_content_list_are_read():
    parts = [
        {"type": "text", "text": "look: "},
        {"type": "image_url", "image_url": {"url": "data:,"}},
        "here",
    ]
    assert input_text([{"role": "user", "content": parts}]) == "look: here"


def test_of_a_very_long_input_the_end_is_kept():
    messages = [
        {"role": "tool", "content": "x" * MAX_CHARACTERS},
        {"role": "user", "content": "refund"},
    ]
    text = input_text(messages)
    assert len(text) == 100_000
    assert text.endswith("x\nrefund")


def test_terms_are_words_and_pairs_in_one_case_and_form():
    assert terms_of("My CAFE\u0301, \uff11") == [
        "my",
        "caf\u00e9",
        "1",
        "my caf\u00e9",
        "caf\u00e9 1",
    ]


def test_characters_of_unspaced_scripts_are_words():
    assert terms_of("退款 ok") == ["退", "款", "ok", "退 款", "款 ok"]


# Training


def test_a_head_learns_what_the_reference_answers(head: Head):
    unseen = tickets(100, seed=3, split="test")
    right = [
        head.predict(input_text(e.request.messages))[0] == e.answer.text for e in unseen
    ]
    assert sum(right) == 100


def test_a_head_learns_a_language_without_blanks():
    texts = {"billing": "请问我的发票可以退款吗", "login": "我忘记密码无法登录账号"}
    examples = [
        example(f"{'你好' * (n % 3)}{texts[label]}{n}", label, n)
        for n, label in enumerate(["billing", "login"] * 20)
    ]
    head = train_head(examples, labels=LABELS)
    assert head.predict("我想退款")[0] == "billing"
    assert head.predict("登录失败")[0] == "login"


def test_the_artefact_says_what_the_head_was_trained_on(head: Head):
    ids = [f"train-{number:04}" for number in range(200)]
    assert head.trained_on == 200
    assert head.training_hash == content_hash(ids)
    assert (head.labels, head.seed) == (LABELS, 0)


def test_an_untested_head_is_strict_and_uncertified(head: Head):
    assert (head.threshold, head.certified, head.risk) == (0.999, False, None)


def test_training_is_the_same_whatever_the_order(head: Head):
    examples = tickets(200, seed=1)
    seeded(9).shuffle(examples)
    assert train_head(examples, labels=LABELS) == head


def test_answers_outside_the_closed_set_are_skipped():
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    others = [
        example("parcel lost", "no idea", 900),
        example("parcel lost", "", 901),
        example("parcel lost", "shipping", 902, tool_calls=[call]),
    ]
    head = train_head(tickets(60, seed=1) + others, labels=[*LABELS, "", "spam"])
    assert head.trained_on == 60
    assert head.labels == LABELS


def test_the_label_is_answered_exactly_as_the_closed_set_writes_it():
    written = {label: f'{{"queue": "{label}"}}\n' for label in LABELS}
    examples = [
        example(e.request.messages[1]["content"], f" {written[e.answer.text]}", n)
        for n, e in enumerate(tickets(60, seed=1))
    ]
    head = train_head(examples, labels=list(written.values()))
    assert head.predict("refund of the charge")[0] == '{"queue": "billing"}\n'


def test_the_prompts_own_words_are_not_terms():
    examples = [
        example(f"Ticket: {e.request.messages[1]['content']}", e.answer.text, n)
        for n, e in enumerate(tickets(60, seed=1))
    ]
    head = train_head(examples, labels=LABELS)
    assert "ticket" not in head.vocabulary
    assert head.predict("Ticket: quelque chose")[1] == 0.0


def test_too_few_examples_are_refused_with_their_numbers():
    with pytest.raises(NoExamplesError, match="29 of 30 training examples") as caught:
        train_head([*tickets(29, seed=1), example("x", "other", 29)], labels=LABELS)
    assert caught.value.fields == {"given": 30, "usable": 29, "labels_seen": 3}


def test_a_single_label_is_refused():
    examples = tickets(40, seed=1, labels=("login",))
    with pytest.raises(NoExamplesError, match="1 labels seen; needs 30 examples and 2"):
        train_head(examples, labels=LABELS)


def test_inputs_without_shared_words_are_refused():
    examples = [example(f"id{n}", LABELS[n % 2], n) for n in range(40)]
    with pytest.raises(NoExamplesError, match="share no words"):
        train_head(examples, labels=LABELS)


def test_only_the_train_split_is_learned_from():
    examples = tickets(40, seed=1) + tickets(3, seed=2, split="test")
    with pytest.raises(ValueError, match="3 of 43 examples are not of the train split"):
        train_head(examples, labels=LABELS)


def test_a_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=re.escape("'langchain-slm[convert]'")):
        train_head(tickets(40, seed=1), labels=LABELS)


# Parity with scikit-learn


def sklearn_features(vocabulary: Sequence[str] | None = None, **options: object):
    """Return scikit-learn's own analysis of words and pairs, without `terms_of`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    unspaced = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    return TfidfVectorizer(
        preprocessor=lambda text: unicodedata.normalize("NFKC", text).lower(),
        token_pattern=rf"[{unspaced}]|[^\W{unspaced}]+",
        ngram_range=(1, 2),
        sublinear_tf=True,
        vocabulary=vocabulary,
        **options,
    )


def sklearn_pipeline(head: Head):
    """Return `head` as a pipeline that scikit-learn runs."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    features = sklearn_features(head.vocabulary)
    features.idf_ = np.array(head.idf)
    classifier = LogisticRegression()
    two = len(head.labels) == 2
    classifier.classes_ = np.arange(len(head.labels))
    classifier.coef_ = np.array(head.weights[1:] if two else head.weights)
    classifier.intercept_ = np.array(head.bias[1:] if two else head.bias)
    return make_pipeline(features, classifier)


@pytest.fixture(scope="module", params=[2, 3], ids=["two labels", "three labels"])
def either_head(request: pytest.FixtureRequest) -> Head:
    labels = LABELS[: request.param]
    return train_head(tickets(120, seed=4, stray=0.2, labels=labels), labels=labels)


@given(
    words=st.lists(
        st.one_of(
            st.sampled_from(" ".join([*TOPICS.values(), FILLER]).split()),
            st.text(max_size=6),
        ),
        max_size=30,
    )
)
def test_probabilities_equal_scikit_learns(either_head: Head, words: list[str]):
    text = " ".join(words)
    ours = either_head.probabilities(text)
    if ours is None:
        assert not set(terms_of(text)) & set(either_head.vocabulary)
    else:
        theirs = sklearn_pipeline(either_head).predict_proba([text])[0]
        assert ours == pytest.approx(list(theirs), abs=1e-9)


def test_rounding_moves_no_probability_by_one_in_ten_thousand(either_head: Head):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    examples = tickets(120, seed=4, stray=0.2, labels=either_head.labels)
    texts = [input_text(e.request.messages) for e in examples]
    unrounded = make_pipeline(
        sklearn_features(min_df=2, max_df=0.95),
        LogisticRegression(C=10, max_iter=1000),
    ).fit(texts, [e.answer.text for e in examples])
    for text, theirs in zip(texts, unrounded.predict_proba(texts), strict=True):
        assert either_head.probabilities(text) == pytest.approx(list(theirs), abs=1e-4)


def test_many_labels_cap_the_vocabulary():
    texts = [" ".join(f"w{n}x{i}" for i in range(100)) for n in range(50)]
    fitted = fit(texts * 2, [*range(50)] * 2, n_labels=50, seed=0)
    assert len(fitted.vocabulary) == 8000  # of 50 x 199 terms
    assert {len(row) for row in fitted.weights} == {8000}


# Prediction


@pytest.mark.parametrize("text", ["", "   \n", "!?", "zzz qqq", "\ud800", "🙂"])
def test_an_input_without_a_known_word_has_no_confidence(head: Head, text: str):
    label, confidence = head.predict(text)
    assert label in LABELS
    assert confidence == 0.0
    assert head.probabilities(text) is None


def test_a_lone_surrogate_does_not_hide_the_known_words(head: Head):
    assert head.predict("refund \ud800 invoice")[0] == "billing"


def test_large_weights_do_not_overflow():
    head = head_of_words({"sure": 0.5}).model_copy(
        update={"weights": ((0.0,), (5000.0,))}
    )
    assert head.predict("sure") == ("yes", 1.0)


# Calibration


def answered(words: Sequence[str], wrong: Sequence[str] = ()) -> list[Example]:
    pairs = [(word, "yes") for word in words] + [(word, "no") for word in wrong]
    return [
        example(word, answer, number, split="validation")
        for number, (word, answer) in enumerate(pairs)
    ]


def test_a_head_that_is_always_right_answers_everything():
    head = head_of_words({"sure": 0.9, "doubtful": 0.605})
    words = ["sure"] * 100 + ["doubtful"] * 100
    calibrated = calibrate(head, answered(words))
    assert (calibrated.threshold, calibrated.certified) == (0.01, True)
    assert calibrated.risk == 0.03


def test_one_error_in_200_is_within_the_default_risk():
    head = head_of_words({"sure": 0.9, "doubtful": 0.605})
    calibrated = calibrate(head, answered(["sure"] * 199, wrong=["doubtful"]))
    assert (calibrated.threshold, calibrated.certified) == (0.01, True)


def test_the_threshold_excludes_the_errors_that_break_the_cap():
    head = head_of_words({"sure": 0.9, "doubtful": 0.605})
    calibrated = calibrate(head, answered(["sure"] * 198, wrong=["doubtful"] * 2))
    assert (calibrated.threshold, calibrated.certified) == (0.61, True)


@pytest.mark.parametrize("n", [0, 75])
def test_fewer_than_76_threads_certify_nothing(n: int):
    calibrated = calibrate(head_of_words({"sure": 0.9}), answered(["sure"] * n))
    assert (calibrated.threshold, calibrated.certified) == (0.999, False)


def test_76_threads_without_an_error_certify():
    calibrated = calibrate(head_of_words({"sure": 0.9}), answered(["sure"] * 76))
    assert (calibrated.threshold, calibrated.certified) == (0.01, True)


def test_a_head_that_is_confidently_wrong_stays_strict():
    head = head_of_words({"sure": 0.9995})
    calibrated = calibrate(head, answered(["sure"] * 180, wrong=["sure"] * 20))
    assert (calibrated.threshold, calibrated.certified) == (0.999, False)


def test_a_thread_counts_once():
    same = [
        example("sure", "yes", number, split="validation", thread="one")
        for number in range(200)
    ]
    assert not calibrate(head_of_words({"sure": 0.9}), same).certified


def test_an_answer_outside_the_closed_set_counts_as_an_error():
    head = head_of_words({"sure": 0.905})
    others = [
        example("sure", "cannot say", 500 + n, split="validation") for n in range(2)
    ]
    assert calibrate(head, answered(["sure"] * 198) + others).threshold == 0.91


def test_only_the_validation_split_calibrates(head: Head):
    with pytest.raises(ValueError, match="2 of 2 examples are not of the validation"):
        calibrate(head, tickets(2, seed=1, split="test"))


@pytest.mark.parametrize("bad", [{"risk": 0}, {"risk": 1}, {"delta": 0}, {"delta": 1.5}])
def test_risk_and_delta_are_fractions(head: Head, bad: dict[str, float]):
    with pytest.raises(ValueError, match=re.escape("must be in (0, 1)")):
        calibrate(head, [], **bad)


def test_the_risk_holds_where_the_raw_estimate_breaks_it():
    confidences = {f"w{n}": 0.505 + n / 20 for n in range(10)}
    errors = {word: 0.2 * (1 - p) for word, p in confidences.items()}
    head = head_of_words(confidences)
    pool = {
        (word, right, number): example(
            word, "yes" if right else "no", number, split="validation"
        )
        for word in confidences
        for right in (True, False)
        for number in range(200)
    }

    def true_risk(threshold: float) -> float:
        return sum(errors[w] for w, p in confidences.items() if p >= threshold) / 10

    rng = seeded(0)
    broken = raw_broken = 0
    for _ in range(200):
        words = rng.choices(list(confidences), k=200)
        drawn = [(w, rng.random() >= errors[w], n) for n, w in enumerate(words)]
        broken += (
            true_risk(calibrate(head, [pool[key] for key in drawn]).threshold) > 0.03
        )
        wrong = [confidences[word] for word, right, _ in drawn if not right]
        raw = min(t for t in GRID if sum(c >= t for c in wrong) <= 0.03 * 200)
        raw_broken += true_risk(raw) > 0.03
    assert broken <= 20
    assert raw_broken >= 60


def test_200_threads_certify_a_useful_head():
    head = train_head(tickets(400, seed=5, stray=0.15), labels=LABELS)
    head = calibrate(head, tickets(200, seed=6, split="validation", stray=0.15))
    unseen = tickets(1000, seed=7, split="test", stray=0.15)
    predictions = [head.predict(input_text(e.request.messages)) for e in unseen]
    right = [p[0] == e.answer.text for p, e in zip(predictions, unseen, strict=True)]
    answered = [confidence >= head.threshold for _, confidence in predictions]
    wrong = sum(a and not r for a, r in zip(answered, right, strict=True))
    assert head.certified
    assert sum(right) >= 930
    assert sum(answered) >= 700
    assert wrong <= 30


# Artefact


def test_a_head_survives_the_file(calibrated: Head, tmp_path: Path):
    artefact = save_head(calibrated, tmp_path / "heads")
    assert re.fullmatch(r"head-[0-9a-f]{12}\.json", artefact.path)
    assert [p.name for p in (tmp_path / "heads").iterdir()] == [artefact.path]
    loaded = load_head(tmp_path / "heads" / artefact.path, artefact.sha256)
    assert loaded == calibrated
    assert loaded.predict("refund please") == calibrated.predict("refund please")


def test_the_same_head_has_the_same_artefact(calibrated: Head, tmp_path: Path):
    assert save_head(calibrated, tmp_path) == save_head(calibrated, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_changed_file_is_refused(calibrated: Head, tmp_path: Path):
    artefact = save_head(calibrated, tmp_path)
    path = tmp_path / artefact.path
    path.write_bytes(path.read_bytes().replace(b'"certified":true', b'"certified":false'))
    with pytest.raises(PlanError, match=r"has sha256 .*, the plan says .* run convert"):
        load_head(path, artefact.sha256)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(PlanError, match=r"gone\.json: the head cannot be read \(No such"):
        load_head(tmp_path / "gone.json", "0" * 64)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"format_version": 2}, "format_version"),
        ({"idf": [1.0]}, "the file"),
        ({"idf": [1.0, 0.0]}, "idf.1"),
        ({"weights": [[0.5], [0.5]]}, "the file"),
        ({"threshold": 0}, "threshold"),
        ({"bias": [0.0, None]}, "bias.1"),
        ({"labels": ["confidential"]}, "labels"),
        ({"code": "import os"}, "code"),
    ],
)
def test_a_file_that_is_no_head_is_refused(
    tmp_path: Path, change: dict[str, object], where: str
):
    fields = head_of_words({"sure": 0.9, "confidential": 0.6}).model_dump(mode="json")
    path = tmp_path / "head.json"
    path.write_text(json.dumps({**fields, **change}))
    with pytest.raises(PlanError, match=re.escape(f"({where} is wrong)")) as caught:
        load_head(path, sha256(path.read_bytes()).hexdigest())
    assert "confidential" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04.", b"[]", b'{"idf":[NaN]}'])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "head.json"
    path.write_bytes(content)
    with pytest.raises(PlanError, match="is no head that this version reads"):
        load_head(path, sha256(content).hexdigest())


def test_a_folder_that_cannot_be_written_is_named(head: Head, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="cannot write the head"):
        save_head(head, tmp_path / "file")


def test_a_failed_write_leaves_nothing_behind(head: Head, tmp_path: Path):
    name = save_head(head, tmp_path / "elsewhere").path
    (tmp_path / "heads" / name / "in the way").mkdir(parents=True)
    with pytest.raises(PlanError, match="cannot write the head"):
        save_head(head, tmp_path / "heads")
    assert [p.name for p in (tmp_path / "heads").iterdir()] == [name]


def test_a_link_in_the_folder_is_replaced_not_followed(head: Head, tmp_path: Path):
    name = save_head(head, tmp_path / "elsewhere").path
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / name).symlink_to(victim)
    save_head(head, tmp_path / "heads")
    assert victim.read_text() == "untouched"


def test_inference_needs_neither_scikit_learn_nor_numpy(calibrated: Head, tmp_path: Path):
    artefact = save_head(calibrated, tmp_path)
    script = f"""
import sys
from pathlib import Path
from langchain_slm.specialization.heads import HeadChatModel, load_head
head = load_head(Path({str(tmp_path / artefact.path)!r}), {artefact.sha256!r})
print(HeadChatModel(head=head, name="head").invoke("refund my invoice").content)
print([name for name in ("sklearn", "scipy", "numpy", "pickle5") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n") == ["billing", "[]", ""]


# Chat model


@pytest.fixture
def model(calibrated: Head) -> HeadChatModel:
    return HeadChatModel(head=calibrated, name="head-triage")


QUESTION = "my parcel is lost, where is the courier"


def test_it_answers_the_label(model: HeadChatModel):
    answer = model.invoke(QUESTION)
    assert isinstance(answer, AIMessage)
    assert answer.content == "shipping"
    confidence = answer.response_metadata.pop("confidence")
    assert model.head.threshold <= confidence <= 1
    assert answer.response_metadata == {
        "model_name": "head-triage",
        "model_provider": "head",
        "finish_reason": "stop",
    }
    assert answer.usage_metadata == {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
    }


def test_it_abstains_on_what_it_does_not_know(model: HeadChatModel):
    answer = model.invoke("quel temps fait-il")
    assert answer.content == ""
    assert answer.response_metadata == {
        "model_name": "head-triage",
        "model_provider": "head",
        "finish_reason": "stop",
        "confidence": 0.0,
        "abstained": True,
    }


def test_it_abstains_below_its_threshold(calibrated: Head):
    strict = calibrated.model_copy(update={"threshold": 1.0})
    answer = HeadChatModel(head=strict, name="head").invoke(QUESTION)
    assert answer.content == ""
    assert answer.response_metadata["abstained"] is True
    assert 0 < answer.response_metadata["confidence"] < 1


async def test_every_way_to_call_it_gives_the_same_answer(model: HeadChatModel):
    chunks = list(model.stream(QUESTION))
    achunks = [chunk async for chunk in model.astream(QUESTION)]
    answers = [
        model.invoke(QUESTION),
        await model.ainvoke(QUESTION),
        *model.batch([QUESTION, QUESTION]),
        *await model.abatch([QUESTION]),
        sum(chunks[1:], chunks[0]),
        sum(achunks[1:], achunks[0]),
        model.invoke(QUESTION, stream=True),
    ]
    assert {answer.content for answer in answers} == {"shipping"}
    metadata = [answer.response_metadata for answer in answers]
    assert metadata == [metadata[0]] * 8
    assert {answer.usage_metadata["total_tokens"] for answer in answers} == {0}


def test_an_abstention_streams_as_one_empty_chunk(model: HeadChatModel):
    (chunk,) = model.stream("quel temps fait-il")
    assert isinstance(chunk, AIMessageChunk)
    assert chunk.content == ""
    assert chunk.response_metadata["abstained"] is True


async def test_streamed_tokens_reach_the_callbacks(model: HeadChatModel):
    events = [event async for event in model.astream_events(QUESTION, version="v2")]
    streamed = [e for e in events if e["event"] == "on_chat_model_stream"]
    assert [e["data"]["chunk"].content for e in streamed] == ["shipping"]
    assert {e["metadata"]["ls_provider"] for e in events} == {"head"}
    assert {e["metadata"]["ls_model_name"] for e in events} == {"head-triage"}


def test_it_answers_text_whatever_else_is_asked(model: HeadChatModel):
    answer = model.invoke(
        QUESTION,
        stop=["ship"],
        temperature=0.7,
        max_tokens=1,
        tools=[{"type": "function", "function": {"name": "f"}}],
        tool_choice="required",
        response_format={"type": "json_object"},
    )
    assert answer.content == "shipping"
    assert answer.tool_calls == []


def test_it_reads_messages_as_training_did(model: HeadChatModel):
    messages = [
        SystemMessage("invoice refund password"),
        ChatMessage(role="developer", content="invoice refund password"),
        HumanMessage([{"type": "text", "text": "where is it"}]),
        AIMessage("", tool_calls=[{"name": "invoice", "args": {}, "id": "1"}]),
        ToolMessage("parcel with the courier", tool_call_id="1"),
    ]
    expected = model.head.predict("where is it\n\nparcel with the courier")
    answer = model.invoke(messages)
    assert (answer.content, answer.response_metadata["confidence"]) == expected


def test_neither_repr_nor_tracing_dumps_the_head(model: HeadChatModel):
    shown = repr(model) + json.dumps(model._serialized) + json.dumps(model.asdict())
    assert "head-triage" in shown
    assert "invoice" not in shown
    assert len(shown) < 2000


def test_a_cache_tells_heads_apart(model: HeadChatModel):
    other = model.head.model_copy(update={"threshold": 0.5})
    string = HeadChatModel(head=other, name="head-triage")._get_llm_string()
    assert string != model._get_llm_string()
