"""The README's first command, in process: no key, no network."""

import json

from langchain_slm.cli import main


def test_the_demo_converts_the_support_desk_and_runs_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "NVIDIA_API_KEY", "SUPPORT_DESK_URL"):
        monkeypatch.delenv(name, raising=False)
    assert main(["demo", "--json"]) == 0
    out, _ = capsys.readouterr()
    shown = json.loads(out)
    assert shown["synthetic"] is True
    plan = shown["plan"]
    assert plan == json.loads((tmp_path / "slm-plan.json").read_text())

    decided = {each["site"]: each for each in plan["decisions"]}
    assert set(decided) == {
        "triage",
        "assess/priority",
        "assess/extract",
        "lookup",
        "reply",
    }
    proven = {site for site, each in decided.items() if each["decision"] == "proven"}
    assert proven >= {"triage", "assess/extract"}
    assert decided["triage"]["model"] == "head"
    assert decided["reply"]["decision"] == "kept"
    assert "not testable" in decided["reply"]["reason"]
    assert decided["lookup"]["decision"] == "kept"
    assert "inferior" in decided["lookup"]["reason"]
    for site in proven:
        seen = decided[site]["chosen"]
        assert seen["e_value"] >= decided[site]["threshold"]
        assert seen["usd_per_correct"] < seen["reference_usd_per_correct"]

    answered = shown["answered_by"]
    assert shown["new_inputs"] == 8
    assert answered["assess/extract"] == {"desk-small": 8}
    assert answered["triage"]["head"] >= 1
    assert answered["reply"] == {"desk-large": 8}
    assert answered["lookup"] == {"desk-large": 8}
