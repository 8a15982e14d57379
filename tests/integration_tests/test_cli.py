"""The command line, in process, on real files: results, bad input, exit codes."""

import json
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from cli_reference import PAGE, reference

from langchain_slm.cli import main
from langchain_slm.recording.interchange import read_suite
from langchain_slm.replay import ReplayServer

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
APP = """
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    node: str
    messages: list
    tools: list
    answer: str


def ask(state):
    model = ChatOpenAI(
        model="ref-large", base_url=os.environ["MADE_URL"], api_key="x", max_retries=0
    )
    bound = model.bind_tools(state["tools"])
    return {"answer": str(bound.invoke(state["messages"]).tool_calls)}


builder = StateGraph(State)
for name in ("weather", "orders"):
    builder.add_node(name, ask)
    builder.add_edge(name, END)
builder.add_conditional_edges(START, lambda state: state["node"], ["weather", "orders"])
graph = builder.compile()

def ask_in_a_thread(state):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask, state).result()


threaded = StateGraph(State)
threaded.add_node("weather", ask_in_a_thread)
threaded.add_edge(START, "weather")
threaded = threaded.compile()

silent = StateGraph(State)
silent.add_node("quiet", lambda state: {"answer": "no model was asked"})
silent.add_edge(START, "quiet")
silent = silent.compile()
factory = lambda config: graph
number = 7
"""
LOUD = """
print("imported")


def ask(state):
    print("asked")"""
CATALOGUE = """
[models.ref-large]
provider = "openai"
base_url = "{url}"
usd_per_million_input_tokens = 2.0
usd_per_million_output_tokens = 2.0

[models.slm-good]
provider = "openai"
base_url = "{url}"
usd_per_million_input_tokens = 0.1
usd_per_million_output_tokens = 0.1
"""


@pytest.fixture
def project(tmp_path, made_suite, monkeypatch):
    """An app, its inputs and its catalogue, in front of recorded models."""
    suite = read_suite(made_suite)
    inputs = [
        {"node": c.node, "messages": list(c.messages), "tools": list(c.tools)}
        for c in suite.cases
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "inputs.jsonl").write_text("\n".join(map(json.dumps, inputs)))
    with ReplayServer([suite]) as server:
        (tmp_path / "models.toml").write_text(CATALOGUE.format(url=server.url))
        monkeypatch.setenv("MADE_URL", server.url)
        yield tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


CONVERT = ("convert", "app.py:graph", "--models", "models.toml")


def test_record_convert_and_rewrite_from_the_shell(project, capsys):
    code, out, _ = run(
        capsys, "record", "app.py:graph", "--inputs", "inputs.jsonl", "--json"
    )
    assert code == 0
    assert json.loads(out) == {
        "runs": 440,
        "failed": 0,
        "calls": 440,
        "lost": 0,
        "sites": {"orders": 220, "weather": 220},
    }

    truth = ("--truth", str(project / "made_suite"), "--split", "0,0,1")
    code, out, _ = run(capsys, *CONVERT, *truth, "--json")
    plan = json.loads(out)["plan"]
    assert code == 0
    assert {d["site"]: d["decision"] for d in plan["decisions"]} == {
        "weather": "proven",
        "orders": "kept",
    }
    assert plan == json.loads((project / "slm-plan.json").read_text())

    code, out, err = run(capsys, "rewrite", "app.py:graph")
    assert code == 0
    assert "ref-large -> slm-good" in out
    assert "ref-large kept" in out
    assert err == ""


def test_a_graph_that_its_app_recorded_is_found_whatever_its_name(project, capsys):
    record_some(project, capsys, 60, "--name", "production")
    assert run(capsys, *CONVERT)[0] == 1  # decided: nothing provable from so few
    code, _, err = run(capsys, *CONVERT, "--name", "staging")
    assert code == 2
    assert "'production'" in err


def test_without_truth_the_candidate_must_agree_with_the_reference(project, capsys):
    run(capsys, "record", "app.py:graph", "--inputs", "inputs.jsonl")
    code, out, _ = run(capsys, *CONVERT, "--json")
    plan = json.loads(out)["plan"]
    assert code == 1
    assert plan["compared_with"] == "reference"
    assert [d["decision"] for d in plan["decisions"]] == ["kept", "kept"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("record", "gone.py:graph", "--inputs", "inputs.jsonl"), "gone.py"),
        (
            ("record", "app.py:gone", "--inputs", "inputs.jsonl"),
            "graph, threaded, silent",
        ),
        (("record", "app.py:number", "--inputs", "inputs.jsonl"), "int"),
        (("record", "app.py", "--inputs", "inputs.jsonl"), "PATH.py:VARIABLE"),
        (("record", "app.py:graph", "--inputs", "gone.jsonl"), "gone.jsonl"),
        (("record", "app.py:silent", "--inputs", "inputs.jsonl"), "no call"),
        (("convert", "app.py:graph", "--models", "gone.toml"), "gone.toml"),
        (CONVERT, "slm.db"),
        ((*CONVERT, "--split", "1,2"), "three shares"),
        ((*CONVERT, "--margin", "7"), "--margin"),
        ((*CONVERT, "--evaluator", "weather"), "SITE=PATH.py:FUNCTION"),
        ((*CONVERT, "--store", "mysql://x"), "sqlite"),
        (("rewrite", "app.py:graph", "--plan", "gone.json"), "gone.json"),
        (("select", "gone", "--reference", "x"), "gone"),
        (("replay", "gone"), "gone"),
        (("replay", "made_suite", "--host", "0.0.0.0"), "loopback"),  # noqa: S104 - refused
        (("no-such-command",), "no-such-command"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(project, capsys, arguments, says):
    before = {path for path in project.rglob("*") if "__pycache__" not in path.parts}
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    after = {path for path in project.rglob("*") if "__pycache__" not in path.parts}
    assert {path.suffix for path in after - before} <= {".db", ".db-wal", ".db-shm"}


def test_an_app_that_does_not_import_is_named_with_its_line(project, capsys):
    (project / "broken.py").write_text("import os\nraise RuntimeError('no key')\n")
    code, _, err = run(capsys, "record", "broken.py:graph", "--inputs", "inputs.jsonl")
    assert code == 2
    assert "broken.py" in err
    assert "RuntimeError" in err
    assert "line 2" in err


def test_an_error_is_one_json_object_with_json(project, capsys):
    code, out, _ = run(capsys, "rewrite", "app.py:graph", "--plan", "gone.json", "--json")
    assert code == 2
    assert json.loads(out)["error"]["type"] == "PlanError"


def test_json_stands_alone_whatever_the_app_prints(project, capsys):
    (project / "app.py").write_text(APP.replace("def ask(state):", LOUD))
    lines = (project / "inputs.jsonl").read_text().splitlines()[:3]
    (project / "inputs.jsonl").write_text("\n".join(lines))
    code, out, err = run(
        capsys, "record", "app.py:graph", "--inputs", "inputs.jsonl", "--json"
    )
    assert code == 0
    assert json.loads(out)["calls"] == 3
    assert "imported" in err
    assert "asked" in err


def test_json_stands_alone_whatever_child_processes_and_c_code_print(project):
    loud = "os.system('echo child')\nos.write(1, b'descriptor\\n')\n"
    (project / "app.py").write_text(APP + loud)
    command = [sys.executable, "-c", "from langchain_slm.cli import main; exit(main())"]
    done = subprocess.run(
        [*command, "inspect", "app.py:graph", "--json"], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["graphs"][0]["variable"] == "graph"
    assert b"child" in done.stderr
    assert b"descriptor" in done.stderr


def test_a_wrong_option_is_an_error_object_too(project, capsys):
    code, out, err = run(capsys, *CONVERT, "--margin", "nan", "--json")
    assert code == 2
    assert json.loads(out)["error"]["type"] == "UsageError"
    assert "--margin" in err


def test_an_evaluator_for_a_site_that_nobody_recorded_is_refused(project, capsys):
    record_some(project, capsys, 30)
    code, _, err = run(capsys, *CONVERT, "--evaluator", "wether=app.py:ask")
    assert code == 2
    assert "wether" in err
    assert "weather" in err


def test_inputs_that_do_not_fit_the_graph_are_blamed(project, capsys):
    (project / "inputs.jsonl").write_text('{"node": "gone"}')
    code, _, err = run(capsys, "record", "app.py:graph", "--inputs", "inputs.jsonl")
    assert code == 2
    assert "check that each line of the inputs" in err


def test_a_line_that_is_not_json_is_named(project, capsys):
    (project / "inputs.jsonl").write_text('{"node": "weather"}\n{broken\n')
    code, _, err = run(capsys, "record", "app.py:graph", "--inputs", "inputs.jsonl")
    assert code == 2
    assert "inputs.jsonl:2" in err


def test_runs_that_fail_are_counted_and_the_others_recorded(project, capsys):
    lines = (project / "inputs.jsonl").read_text().splitlines()
    (project / "inputs.jsonl").write_text("\n".join([*lines[:3], '{"node": "gone"}']))
    code, out, _ = run(
        capsys, "record", "app.py:graph", "--inputs", "inputs.jsonl", "--json"
    )
    assert code == 1
    assert json.loads(out) == {
        "runs": 4,
        "failed": 1,
        "calls": 3,
        "lost": 0,
        "sites": {"weather": 3},
    }


def test_calls_in_threads_are_recorded_where_that_is_asked_for(project, capsys):
    lines = (project / "inputs.jsonl").read_text().splitlines()
    (project / "inputs.jsonl").write_text("\n".join(lines[:2]))
    given = ("record", "app.py:threaded", "--inputs", "inputs.jsonl", "--json")
    code, out, _ = run(capsys, *given)
    assert (code, json.loads(out)["error"]["type"]) == (2, "NoExamplesError")
    code, out, _ = run(capsys, *given, "--hook", "threads")
    assert (code, json.loads(out)["sites"]) == (0, {"weather": 2})
    code, out, err = run(capsys, *given, "--hook", "thread")
    assert code == 2
    assert "--hook: hooks are a collection of ('openai_sdk', 'threads')" in err


def record_some(project, capsys, count: int, *more: str) -> None:
    lines = (project / "inputs.jsonl").read_text().splitlines()
    (project / "inputs.jsonl").write_text("\n".join(lines[:count]))
    run(capsys, "record", "app.py:graph", "--inputs", "inputs.jsonl", *more)


def test_too_few_examples_keep_the_reference_and_say_how_many_are_needed(project, capsys):
    record_some(project, capsys, 15)
    code, out, _ = run(capsys, *CONVERT)
    assert code == 1
    assert "ref-large kept" in out
    assert "fewer pairs than" in out


def test_an_endpoint_that_nobody_listens_on_is_named(project, capsys):
    record_some(project, capsys, 100)
    text = CATALOGUE.format(url="http://127.0.0.1:9/v1")
    (project / "models.toml").write_text(text)
    code, _, err = run(capsys, *CONVERT)
    assert code == 2
    assert "127.0.0.1:9" in err
    assert not (project / "slm-plan.json").exists()


def test_a_key_that_is_not_set_is_named(project, capsys):
    record_some(project, capsys, 100)
    catalogue = (project / "models.toml").read_text()
    keyed = catalogue + 'api_key_env = "NO_SUCH_KEY"\n'
    (project / "models.toml").write_text(keyed)
    code, _, err = run(capsys, *CONVERT)
    assert code == 2
    assert "NO_SUCH_KEY" in err


def test_an_unknown_model_of_an_endpoint_is_named(project, capsys):
    record_some(project, capsys, 100)
    catalogue = (project / "models.toml").read_text()
    (project / "models.toml").write_text(catalogue.replace("slm-good", "slm-gone"))
    code, _, err = run(capsys, *CONVERT)
    assert code == 2
    assert "slm-gone" in err


def test_a_corrupt_store_keeps_its_bytes(project, capsys):
    (project / "slm.db").write_bytes(b"this is no database" * 100)
    code, _, err = run(capsys, *CONVERT)
    assert code == 2
    assert "slm.db" in err
    assert (project / "slm.db").read_bytes() == b"this is no database" * 100


def test_a_store_that_is_locked_is_named(project, capsys):
    record_some(project, capsys, 20)
    other = sqlite3.connect(project / "slm.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        code, _, err = run(capsys, "record", "app.py:graph", "--inputs", "inputs.jsonl")
    finally:
        other.close()
    assert code == 2
    assert "locked" in err


def test_a_plan_edited_by_hand_is_refused(project, capsys):
    record_some(project, capsys, 60)
    run(capsys, *CONVERT)
    plan = project / "slm-plan.json"
    plan.write_text(plan.read_text().replace('"margin": 0.05', '"margin": 0.5'))
    code, _, err = run(capsys, "rewrite", "app.py:graph")
    assert code == 2
    assert "edited" in err


def test_select_decides_a_suite(project, capsys):
    code, out, _ = run(
        capsys,
        "select",
        "made_suite",
        "--reference",
        "ref-large",
        "--agreement",
        "--json",
    )
    result = json.loads(out)
    weather = result["sites"]["weather"]
    assert code == 0
    assert result["margin"] == 0.05
    assert result["alpha"] == 0.05
    assert weather["decision"] == "proven"
    assert weather["model"] == "slm-good"
    assert weather["n"] == 220
    assert weather["e_value"] > 120  # 3 candidates x 2 sites / 0.05
    assert result["sites"]["orders"]["decision"] == "kept"
    assert result["sites"]["orders"]["model"] == "ref-large"
    assert set(result["agreement"].values()) == {1.0}


def test_select_trusts_recorded_flags_when_asked(project, capsys):
    path = project / "made_suite" / "responses" / "slm-good.jsonl"
    path.write_text(path.read_text().replace('"passed": true', '"passed": false'))
    arguments = ("select", "made_suite", "--reference", "ref-large", "--json")
    code, out, _ = run(capsys, *arguments, "--trust-flags")
    assert code == 1
    assert json.loads(out)["sites"]["weather"]["decision"] == "kept"
    assert run(capsys, *arguments)[0] == 0


def test_select_names_the_models_when_the_reference_is_unknown(project, capsys):
    code, _, err = run(capsys, "select", "made_suite", "--reference", "gone")
    assert code == 2
    assert "slm-good" in err


@pytest.mark.parametrize(
    ("suite", "reference", "proven"),
    [
        ("bfcl_v1", "gpt-4o-2024-08-06-FC", {"simple"}),
        ("zeroeval", "gpt-4o-2024-08-06", set()),
    ],
)
def test_select_on_real_recorded_answers(capsys, suite, reference, proven):
    folder = SHARED / suite
    if not folder.is_dir():
        pytest.skip(f"the recorded suite {suite} is not here")
    _, out, _ = run(
        capsys, "select", str(folder), "--reference", reference, "--agreement", "--json"
    )
    result = json.loads(out)
    decided = {k for k, v in result["sites"].items() if v["decision"] == "proven"}
    assert decided == proven
    assert min(result["agreement"].values()) >= 0.995


def test_replay_serves_until_it_is_interrupted(project):
    command = "import sys; from langchain_slm.cli import main; sys.exit(main())"
    serving = subprocess.Popen(
        [sys.executable, "-c", command, "replay", "made_suite", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = json.loads(serving.stdout.readline())
    with urllib.request.urlopen(f"{started['url']}/models") as answer:  # noqa: S310 - loopback
        served = [model["id"] for model in json.load(answer)["data"]]
    serving.send_signal(signal.SIGINT)
    _, err = serving.communicate(timeout=30)
    assert sorted(served) == started["models"]
    assert "slm-good" in served
    assert serving.returncode == 0
    assert err == ""


def test_a_catalogue_of_the_reference_alone_is_no_choice(project, capsys):
    record_some(project, capsys, 100)
    catalogue = (project / "models.toml").read_text()
    (project / "models.toml").write_text(catalogue.partition("[models.slm-good]")[0])
    code, _, err = run(capsys, *CONVERT)
    assert code == 2
    assert "no candidate" in err


def test_a_store_of_a_newer_version_is_left_alone(project, capsys):
    record_some(project, capsys, 20)
    with closing(sqlite3.connect(project / "slm.db")) as store:
        store.execute("UPDATE slm_schema SET version = 99")
        store.commit()
    before = (project / "slm.db").read_bytes()
    code, _, err = run(capsys, *CONVERT)
    assert code == 2
    assert "99" in err
    assert "upgrade" in err
    assert (project / "slm.db").read_bytes() == before


def test_the_reference_page_equals_the_cli():
    assert PAGE.read_text() == reference()


def test_no_key_is_needed_to_ask_for_help(capsys, monkeypatch):
    for name in ("OPENAI_API_KEY", "NVIDIA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "replay" in out
