"""The example app against its shipped recordings: over HTTP, byte for byte."""

import importlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from langchain_slm.evaluation.recorded import decide_suite, judged
from langchain_slm.recording.interchange import read_suite
from langchain_slm.recording.redaction import PatternRedactor
from langchain_slm.replay import ReplayServer

DESK = Path(__file__).parents[2] / "examples" / "support_desk"
SITES = ["triage", "assess/priority", "assess/extract", "lookup", "reply"]
MODULES = ("app", "tickets", "generate")


@pytest.fixture(scope="module")
def desk():
    """The folder's modules, imported as its own scripts import each other."""
    held = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(DESK))
    with pytest.MonkeyPatch.context() as environment:
        for name in ("OPENAI_API_KEY", "SUPPORT_DESK_URL", "SUPPORT_DESK_MODEL"):
            environment.delenv(name, raising=False)
        yield {name: importlib.import_module(name) for name in MODULES}
    sys.path.remove(str(DESK))
    for name in MODULES:
        del sys.modules[name]
    sys.modules.update(held)


def rows(path: str) -> list[dict[str, Any]]:
    with (DESK / path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def answers(folder: str, model: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in rows(f"{folder}/responses/{model}.jsonl")}


@pytest.fixture(scope="module")
def recorded():
    return read_suite(DESK / "recorded")


class Wire(BaseHTTPRequestHandler):
    """Keeps each request's body and gives the next of the prepared messages."""

    protocol_version = "HTTP/1.1"
    bodies: list[dict[str, Any]]
    messages: list[dict[str, Any]]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.bodies.append(json.loads(self.rfile.read(length)))
        choice = {"index": 0, "finish_reason": "stop", "message": self.messages.pop(0)}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "any"}
        content = json.dumps({**reply, "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def wire(monkeypatch):
    handler = type("Handler", (Wire,), {"bodies": [], "messages": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        monkeypatch.setenv(
            "SUPPORT_DESK_URL", f"http://127.0.0.1:{server.server_port}/v1"
        )
        yield handler
        server.shutdown()


def sent(body: dict[str, Any]) -> tuple[object, ...]:
    return body["messages"], body.get("tools"), body.get("response_format")


def test_the_shipped_data_is_what_the_generator_writes(desk):
    made = desk["generate"].data()
    written = {path: (DESK / path).read_bytes().decode() for path in made}
    assert {path for path in made if made[path] != written[path]} == set()
    shipped = {str(p.relative_to(DESK)) for p in DESK.rglob("*.json*")}
    assert shipped == set(made)


def test_the_app_imports_nothing_of_this_package():
    code = (
        "import sys; import app; app.graph.get_graph(); "
        "print([m for m in sys.modules if m.startswith('langchain_slm')])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=DESK,
        env={"PYTHONDONTWRITEBYTECODE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("model", ["desk-large", "desk-small"])
def test_the_cases_are_what_the_app_sends(model, desk, wire, monkeypatch):
    monkeypatch.setenv("SUPPORT_DESK_MODEL", model)
    cases = {case["id"]: case for case in rows("recorded/cases.jsonl")}
    said = answers("recorded", model)
    every = 60 if model == "desk-large" else 300
    threads = [f"t{number:04d}" for number in range(1, 901, every)]
    for thread in threads:
        expected = [cases[f"{thread}/{site}"] for site in SITES]
        text = expected[0]["messages"][1]["content"]
        subject, body = text.split("\n\n", 1)
        wire.messages.extend(said[case["id"]]["message"] for case in expected)
        result = desk["app"].graph.invoke({"subject": subject, "body": body})
        assert [sent(request) for request in wire.bodies] == [sent(c) for c in expected]
        assert {request["model"] for request in wire.bodies} == {model}
        assert {request["temperature"] for request in wire.bodies} == {0}
        messages = {site: said[f"{thread}/{site}"]["message"] for site in SITES}
        assert result["label"] == messages["triage"]["content"]
        assert result["priority"] == messages["assess/priority"]["content"]
        assert result["facts"] == json.loads(messages["assess/extract"]["content"])
        assert result["reply"] == messages["reply"]["content"]
        wire.bodies.clear()


@pytest.mark.parametrize("model", ["desk-large", "desk-small"])
def test_the_new_inputs_run_on_a_replay_of_both_suites(
    model, desk, recorded, monkeypatch
):
    monkeypatch.setenv("SUPPORT_DESK_MODEL", model)
    inputs = rows("new_inputs.jsonl")
    with ReplayServer([recorded, read_suite(DESK / "recorded_new")]) as server:
        monkeypatch.setenv("SUPPORT_DESK_URL", server.url)
        results = desk["app"].graph.batch(inputs)
        asked = sorted(server.requests)
    assert asked == sorted(
        (model, f"n{number:04d}/{site}") for number in range(1, 9) for site in SITES
    )
    said = answers("recorded_new", model)
    for number, result in enumerate(results, start=1):
        lookup = said[f"n{number:04d}/lookup"]["message"]
        looked_up = [m for m in result["messages"] if m.type == "tool"]
        assert len(looked_up) == len(lookup.get("tool_calls") or [])
        assert all(message.status == "success" for message in looked_up)
    assert {result["label"] for result in results} == {
        case["reference"]["label"]
        for case in rows("recorded_new/cases.jsonl")
        if case["node"] == "triage"
    }


def test_a_broken_tool_call_does_not_stop_the_desk(desk, recorded, monkeypatch):
    said = answers("recorded", "desk-small")
    broken = [
        case
        for case in recorded.cases
        for call in said[case.id]["message"].get("tool_calls", [])[:1]
        if not call["function"]["arguments"].endswith("}")
    ]
    assert len(broken) == 7
    subject, body = broken[0].messages[1]["content"].split("\n\n", 1)
    monkeypatch.setenv("SUPPORT_DESK_MODEL", "desk-small")
    with ReplayServer([recorded]) as server:
        monkeypatch.setenv("SUPPORT_DESK_URL", server.url)
        result = desk["app"].graph.invoke({"subject": subject, "body": body})
    assert [message.type for message in result["messages"]] == ["ai"]
    assert result["reply"]


def test_the_models_are_as_good_as_the_read_me_says(recorded):
    flags = {
        model: {row["id"]: row["passed"] for row in answers("recorded", model).values()}
        for model in ("desk-large", "desk-small")
    }
    assert judged(recorded) == flags
    passed = {
        site: [
            sum(flags[model][f"t{number:04d}/{site}"] for number in range(1, 901))
            for model in ("desk-large", "desk-small")
        ]
        for site in SITES
    }
    assert passed == {
        "triage": [886, 845],
        "assess/priority": [873, 813],
        "assess/extract": [891, 887],
        "lookup": [882, 781],
        "reply": [900, 0],
    }


def test_the_models_differ_as_the_read_me_says():
    large, small = answers("recorded", "desk-large"), answers("recorded", "desk-small")
    differing = dict.fromkeys(SITES, 0)
    for case_id, row in large.items():
        differs = row["message"] != small[case_id]["message"]
        differing[case_id.split("/", 1)[1]] += differs
    assert differing == {
        "triage": 41,
        "assess/priority": 63,
        "assess/extract": 4,
        "lookup": 101,
        "reply": 900,
    }


def test_only_extraction_is_proven_for_the_small_model(recorded):
    decisions = decide_suite(
        recorded, reference="desk-large", margin=0.05, alpha=0.05, flags=judged(recorded)
    )
    assert {each.site: each.decision for each in decisions} == {
        "triage": "kept",
        "assess/priority": "kept",
        "assess/extract": "proven",
        "lookup": "kept",
        "reply": "kept",
    }


def _predicted(site: str) -> list[tuple[float, bool]]:
    """Confidence and correctness of a bag of words on the second half of the threads."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    cases = [case for case in rows("recorded/cases.jsonl") if case["node"] == site]
    texts = [case["messages"][1]["content"] for case in cases]
    labels = [case["reference"]["label"] for case in cases]
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000),
    ).fit(texts[:450], labels[:450])
    sure = model.predict_proba(texts[450:])
    guesses = model.classes_[sure.argmax(axis=1)]
    right = [g == label for g, label in zip(guesses, labels[450:], strict=True)]
    return sorted(zip(sure.max(axis=1), right, strict=True), reverse=True)


def test_triage_is_learnable_where_a_bag_of_words_is_sure():
    answered = _predicted("triage")
    assert 0.91 <= sum(right for _, right in answered) / 450 <= 0.985
    sure = answered[:300]
    assert sum(not right for _, right in sure) <= 3


def test_priority_is_not_learnable_by_a_bag_of_words():
    answered = _predicted("assess/priority")
    assert 0.65 <= sum(right for _, right in answered) / 450 <= 0.88
    assert sum(not right for _, right in answered[:300]) >= 9


def test_the_tickets_are_distinct_and_varied():
    cases = rows("recorded/cases.jsonl") + rows("recorded_new/cases.jsonl")
    texts = {case["messages"][1]["content"] for case in cases}
    assert len(texts) == 908
    lengths = sorted(map(len, texts))
    assert lengths[90] < 160
    assert lengths[-90] > 320
    calls = {len(c["reference"]["calls"]) for c in cases if c["node"] == "lookup"}
    assert {0, 1, 2} <= calls
    for site, kinds in (("triage", 7), ("assess/priority", 4)):
        labels = [c["reference"]["label"] for c in cases if c["node"] == site]
        assert len(set(labels)) == kinds
        assert min(map(labels.count, set(labels))) >= 60


def test_nothing_in_the_tickets_looks_like_personal_data():
    redactor = PatternRedactor()
    for row in [
        *rows("recorded/cases.jsonl"),
        *rows("recorded_new/cases.jsonl"),
        *answers("recorded", "desk-large").values(),
        *answers("recorded", "desk-small").values(),
    ]:
        assert list(redactor.find(json.dumps(row, ensure_ascii=False))) == []


def test_the_example_stays_small():
    files = [
        path
        for path in DESK.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sum(path.stat().st_size for path in files) < 6_000_000


def test_everything_recorded_is_labelled_synthetic():
    for folder in ("recorded", "recorded_new"):
        models = json.loads((DESK / folder / "models.json").read_text())
        for model in models.values():
            assert "synthetic" in model["source"]
            assert "synthetic" in model["note"]
    assert "Synthetic:" in (DESK / "recorded" / "README.md").read_text()
