"""Rewrite the recorded data of the example: `python examples/support_desk/generate.py`.

Synthetic: tickets come out of a grammar, and the answers of both models are what is
true of a ticket, spoilt at rates that this file states. No model of anybody answered.
The same code gives the same bytes. Refuses nothing; it overwrites its own files only.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import app
from langchain_core.messages import convert_to_openai_messages
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.utils.function_calling import convert_to_openai_tool
from tickets import PRIORITIES, Ticket, phrases, tickets

HERE = Path(__file__).parent
SEED = 20250602
THREADS = 900
SPARE = 200  # tickets besides, out of which the new inputs are chosen

CHARACTERS_PER_TOKEN = 4  # the usual estimate for English; no tokenizer is shipped

LARGE_WRONG = {"triage": 0.015, "priority": 0.03, "extract": 0.01, "lookup": 0.02}
SMALL_DIFFERS = {  # from desk-large
    "triage": 0.045,
    "priority": 0.07,
    "extract": 0.004,
    "needless call": 0.065,
    "dropped call": 0.04,
    "broken arguments": 0.008,
}

MODELS = {
    "desk-large": {
        "params_b": None,
        "input_usd_per_1m": 2.5,
        "output_usd_per_1m": 10,
        "kind": "llm",
        "specialised_for": None,
        "source": "synthetic: a price as general models at the frontier have it",
        "note": "synthetic: written by a generator, no model of anybody answered",
        "reference": True,
    },
    "desk-small": {
        "params_b": None,
        "input_usd_per_1m": 0.1,
        "output_usd_per_1m": 0.1,
        "kind": "slm",
        "specialised_for": None,
        "source": "synthetic: a price as hosted small models have it",
        "note": "synthetic: written by a generator, no model of anybody answered",
    },
}

Calls = tuple[tuple[str, dict[str, str]], ...]


@dataclass(frozen=True)
class Site:
    """What the app sends at a site, besides the ticket."""

    prompt: ChatPromptTemplate
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answers:
    """What a model says to one ticket, site by site."""

    label: str
    priority: str
    facts: dict[str, Any]
    calls: Calls
    reply: str
    broken: bool = False


SITES = {
    "triage": Site(app.TRIAGE),
    "assess/priority": Site(app.PRIORITY),
    "assess/extract": Site(
        app.EXTRACT,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "schema": app.Facts.model_json_schema(),
                "name": "Facts",
                "strict": True,
            },
        },
    ),
    "lookup": Site(app.LOOKUP, tools=[convert_to_openai_tool(t) for t in app.TOOLS]),
    "reply": Site(app.REPLY),
}


def data() -> dict[str, str]:
    """Return the text of every generated file by its path in this folder."""
    made = tickets(THREADS + SPARE, seed=SEED)
    old = {f"t{i:04d}": ticket for i, ticket in enumerate(made[:THREADS], 1)}
    new = {f"n{i:04d}": ticket for i, ticket in enumerate(_varied(made[THREADS:]), 1)}
    inputs = [{"subject": t.subject, "body": t.body} for t in new.values()]
    return {
        **{f"recorded/{path}": text for path, text in suite(old, seed=SEED).items()},
        **{f"recorded_new/{path}": text for path, text in suite(new, seed=SEED).items()},
        "new_inputs.jsonl": _jsonl(inputs),
    }


def _varied(spare: list[Ticket]) -> list[Ticket]:
    """Return the first ticket of each label, and one that is hard in two ways."""
    first = {ticket.label: ticket for ticket in reversed(spare)}
    chosen = [first[label] for label in get_args(app.Label)]
    hard = (t for t in spare if t.rival and len(t.calls) > 1 and t not in chosen)
    return [*chosen, next(hard)]


def suite(threads: dict[str, Ticket], *, seed: int) -> dict[str, str]:
    """Return the files of a recorded suite on `threads`."""
    rng = random.Random(seed)
    asked = list(threads.values())
    truth = [_truth(ticket, rng) for ticket in asked]
    large = _large(asked, truth, rng)
    answers = {"desk-large": large, "desk-small": _small(asked, large, rng)}
    cases = list(_cases(threads, truth))
    responses = {
        f"responses/{model}.jsonl": _jsonl(_responses(cases, truth, said))
        for model, said in answers.items()
    }
    models = json.dumps(MODELS, indent=1) + "\n"
    return {"cases.jsonl": _jsonl(cases), "models.json": models, **responses}


def _jsonl(rows: Sequence[object] | Iterator[object]) -> str:
    return "".join(
        json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows
    )


def _cases(threads: dict[str, Ticket], truth: list[Answers]) -> Iterator[dict[str, Any]]:
    for (thread, ticket), true in zip(threads.items(), truth, strict=True):
        for name, site in SITES.items():
            messages = site.prompt.format_messages(
                subject=ticket.subject, body=ticket.body
            )
            grader, reference = _expected(name, true)
            case = {
                "id": f"{thread}/{name}",
                "suite": "support_desk",
                "node": name,
                "thread": thread,
                "messages": convert_to_openai_messages(messages),
                "tools": site.tools,
                "reference": reference,
                "grader": grader,
            }
            if site.response_format:
                case["response_format"] = site.response_format
            yield case


def _expected(site: str, true: Answers) -> tuple[str, dict[str, Any]]:
    """Return the grading rule of a site and what it compares with."""
    match site:
        case "triage":
            return "label", {"label": true.label, "labels": list(get_args(app.Label))}
        case "assess/priority":
            return "label", {"label": true.priority, "labels": list(PRIORITIES)}
        case "assess/extract":
            return "fields", {"fields": true.facts}
        case "lookup":
            accepted = [
                {"name": tool, "arguments": {k: [v] for k, v in arguments.items()}}
                for tool, arguments in true.calls
            ]
            return "bfcl_ast" if accepted else "relevance", {"calls": accepted}
        case _:
            return "exact_text", {"text": true.reply}


def _responses(
    cases: list[dict[str, Any]], truth: list[Answers], said: list[Answers]
) -> Iterator[dict[str, Any]]:
    for number, case in enumerate(cases):
        thread, site = number // len(SITES), case["node"]
        message = _message(site, said[thread])
        sent = [case["messages"], case["tools"], case.get("response_format")]
        answer = message.get("tool_calls") or message["content"]
        yield {
            "id": case["id"],
            "message": message,
            "passed": message == _message(site, truth[thread]),
            "input_tokens_est": _tokens(sent),
            "output_tokens_est": _tokens(answer),
        }


def _tokens(value: object) -> int:
    return -(-len(json.dumps(value, ensure_ascii=False)) // CHARACTERS_PER_TOKEN)


def _message(site: str, said: Answers) -> dict[str, Any]:
    """Return the assistant message of a site."""
    content = {
        "triage": said.label,
        "assess/priority": said.priority,
        "assess/extract": json.dumps(said.facts, separators=(",", ":")),
        "lookup": "none",
        "reply": said.reply,
    }[site]
    if site != "lookup" or not said.calls:
        return {"role": "assistant", "content": content}
    # A broken call lost its closing brace.
    end = -1 if said.broken else None
    calls = [
        {
            "id": f"call_{i}",
            "type": "function",
            "function": {"name": tool, "arguments": json.dumps(arguments)[:end]},
        }
        for i, (tool, arguments) in enumerate(said.calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _truth(ticket: Ticket, rng: random.Random) -> Answers:
    return Answers(
        label=ticket.label,
        priority=ticket.priority,
        facts=ticket.facts,
        calls=ticket.calls,
        # No reply is the only right one: the reference model's words stand for it.
        reply=_large_reply(ticket, rng),
    )


def _large(
    asked: list[Ticket], truth: list[Answers], rng: random.Random
) -> list[Answers]:
    """Return the reference model's answers: now and then wrong where it is not plain."""
    said, wrong = list(truth), LARGE_WRONG
    _spoil(said, wrong["triage"], rng, _rival_label(asked), lambda i, _: asked[i].blurred)
    _spoil(said, wrong["priority"], rng, _near_priority, lambda i, _: asked[i].delicate)
    _spoil(said, wrong["extract"], rng, _other_fact)
    _spoil(said, wrong["lookup"] / 2, rng, _needless_call, lambda _, a: not a.calls)
    _spoil(said, wrong["lookup"] / 2, rng, _drop_call, lambda _, a: len(a.calls) > 1)
    return said


def _small(
    asked: list[Ticket], large: list[Answers], rng: random.Random
) -> list[Answers]:
    """Return the small model's answers: the large one's, and where they differ."""
    said, differs = list(large), SMALL_DIFFERS
    _spoil(said, differs["triage"] / 3, rng, _any_label, lambda i, _: not asked[i].rival)
    right = _has_rival(asked)
    _spoil(
        said,
        differs["triage"] * 2 / 3,
        rng,
        _rival_label(asked),
        lambda i, a: right(i, a) and a.label == asked[i].label,
    )
    _spoil(said, differs["priority"], rng, _near_priority)
    _spoil(said, differs["extract"], rng, _other_fact)
    _spoil(
        said, differs["broken arguments"], rng, _break_call, lambda _, a: bool(a.calls)
    )
    _spoil(
        said,
        differs["dropped call"],
        rng,
        _drop_call,
        lambda _, a: len(a.calls) > 1 and not a.broken,
    )
    _spoil(said, differs["needless call"], rng, _needless_call, lambda _, a: not a.calls)
    return [
        replace(a, reply=_small_reply(t, rng)) for t, a in zip(asked, said, strict=True)
    ]


Change = Callable[[int, Answers, random.Random], Answers]


def _spoil(
    said: list[Answers],
    share: float,
    rng: random.Random,
    change: Change,
    where: Callable[[int, Answers], bool] = lambda _, __: True,
) -> None:
    """Change `share` of all answers in place, drawn from those of `where`."""
    open_to = [i for i, answers in enumerate(said) if where(i, answers)]
    wanted = min(round(share * len(said)), len(open_to))
    for i in rng.sample(open_to, wanted):
        said[i] = change(i, said[i], rng)


def _has_rival(asked: list[Ticket]) -> Callable[[int, Answers], bool]:
    return lambda i, _: asked[i].rival is not None


def _rival_label(asked: list[Ticket]) -> Change:
    return lambda i, a, _: replace(a, label=asked[i].rival or a.label)


def _any_label(_: int, answers: Answers, rng: random.Random) -> Answers:
    others = [label for label in get_args(app.Label) if label != answers.label]
    return replace(answers, label=rng.choice(others))


def _near_priority(_: int, answers: Answers, rng: random.Random) -> Answers:
    at = PRIORITIES.index(answers.priority)
    near = [i for i in (at - 1, at + 1) if 0 <= i < len(PRIORITIES)]
    return replace(answers, priority=PRIORITIES[rng.choice(near)])


def _other_fact(_: int, answers: Answers, rng: random.Random) -> Answers:
    actions = app.Facts.model_json_schema()["properties"]["action"]["enum"]
    action = rng.choice([name for name in actions if name != answers.facts["action"]])
    upset = not answers.facts["upset"]
    other = rng.choice([{"action": action}, {"upset": upset}])
    return replace(answers, facts={**answers.facts, **other})


def _needless_call(_: int, answers: Answers, rng: random.Random) -> Answers:
    topic = rng.choice(["returns", "warranty", "care"])
    return replace(answers, calls=(("search_help", {"topic": topic}),))


def _drop_call(_: int, answers: Answers, rng: random.Random) -> Answers:
    calls = list(answers.calls)
    del calls[rng.randrange(len(calls))]
    return replace(answers, calls=tuple(calls))


def _break_call(_: int, answers: Answers, __: random.Random) -> Answers:
    return replace(answers, broken=True)


def _large_reply(ticket: Ticket, rng: random.Random) -> str:
    words = phrases()["replies"]["large"]
    order, product = ticket.facts["order_id"], ticket.facts["product"]
    about = f" of order {order}" if order else f" of the {product}" if product else ""
    first = rng.choice(words["first"]).format(
        matter=words["matter"][ticket.label], about=about
    )
    sorry = rng.choice(words["sorry"]) if ticket.facts["upset"] else ""
    return " ".join(filter(None, [sorry, first, rng.choice(words["next"][ticket.label])]))


def _small_reply(ticket: Ticket, rng: random.Random) -> str:
    words = phrases()["replies"]["small"]
    topic = words["topic"][ticket.label]
    return str(rng.choice(words["said"]).format(topic=topic, Topic=topic.capitalize()))


def main() -> None:
    """Write the files and print their sizes."""
    for path, text in data().items():
        file = HERE / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
        print(f"{len(text.encode()):>9,}  {path}")


if __name__ == "__main__":
    main()
