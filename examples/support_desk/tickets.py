"""Tickets out of the grammar in phrases.toml, each with what is true of it.

Synthetic: no ticket was written by a customer, and no model wrote any. The text is
composed first; number, product and amount are true because they stand in it.
"""

import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

LABELS = {  # share of each label, in percent
    "billing": 18,
    "delivery": 20,
    "returns": 15,
    "fault": 18,
    "account": 10,
    "order_change": 9,
    "product_question": 10,
}
PRIORITIES = ("low", "normal", "high", "urgent")
TIMINGS = {None: 64, "now": 15, "week": 13, "later": 8}  # percent
# Fractions of all tickets, each where it can be at all.
TWO_PROBLEMS = 0.07
BLURRED = 0.4
FRUSTRATED = 0.25
NO_DANGER = 0.08
TYPO = 0.05  # of the words of a careless customer
TOOL_OF_NUMBER = {
    "order": ("get_order", "order_id"),
    "tracking": ("track_parcel", "tracking_id"),
}
ID_LETTERS = "BCDFGHJKLMNPRSTVWXZ"

Issue = dict[str, Any]  # one [[issue]] of phrases.toml


@dataclass(frozen=True)
class Ticket:
    """A ticket and what is true of it.

    Attributes:
        subject: Its first line.
        body: Its text.
        label: The queue that it belongs to.
        rival: A queue that it could be taken for; None where it is plain.
        blurred: Much of what it says belongs to the rival.
        priority: How soon it must be dealt with.
        delicate: Its priority hangs on a cue that another cue contradicts.
        facts: What stands in it, in the form of the app's `Facts`.
        calls: The look-ups that it needs, as pairs of tool and arguments.
    """

    subject: str
    body: str
    label: str
    rival: str | None
    blurred: bool
    priority: str
    delicate: bool
    facts: dict[str, Any]
    calls: tuple[tuple[str, dict[str, str]], ...]


@dataclass(frozen=True)
class Style:
    """How a kind of customer writes.

    Attributes:
        share: Percentage of all tickets.
        more: Fraction of their tickets that give a detail of the problem.
        talk: Mean number of sentences on such problems in general.
        long: They add things that do not matter.
    """

    share: int
    more: float
    talk: float
    long: bool


STYLES = {
    "terse": Style(share=38, more=0.1, talk=0.75, long=False),
    "plain": Style(share=37, more=0.3, talk=1, long=True),
    "polite": Style(share=10, more=0.6, talk=1.5, long=True),
    "angry": Style(share=15, more=0.3, talk=0.9, long=False),
}


@dataclass(frozen=True)
class Story:
    """What a ticket is to say, before it has words."""

    issue: Issue
    said: str
    second: Issue | None
    blurred: bool
    timing: str | None
    idle: bool
    no_danger: bool
    action: str
    mood: str

    @property
    def rival(self) -> str | None:
        """The label of the second problem, or the one that the issue resembles."""
        other = self.second["label"] if self.second else self.issue.get("straddles")
        return str(other) if other else None

    @property
    def delicate(self) -> bool:
        """Whether a cue for the priority stands against another cue."""
        odd = self.timing is not None and self.issue["impact"] == "question"
        cues = [self.idle, self.no_danger, self.timing == "later", odd]
        return any(cues) or self.second is not None


@dataclass
class Draft:
    """A ticket in the making: a number or product, once filled in, stays the same."""

    rng: random.Random
    style: str
    filled: dict[str, str] = field(default_factory=dict)

    def fill(self, sentence: str) -> str:
        """Replace the slots of `sentence`."""
        return re.sub(r"\{(\w+)\}", lambda slot: self._slot(slot[1]), sentence)

    def say(self, sentences: list[str]) -> str:
        """Return one of `sentences`, filled."""
        return self.fill(self.rng.choice(sentences))

    def chance(self, long: float, short: float | None = None) -> bool:
        """Return True in `long` of all cases, for short styles in `short`."""
        share = long if STYLES[self.style].long or short is None else short
        return self.rng.random() < share

    def _slot(self, name: str) -> str:
        # What means nothing may differ from sentence to sentence.
        if choices := phrases()["fill"].get(name.lower()):
            text: str = self.rng.choice(choices)
            return text[0].upper() + text[1:] if name[0].isupper() else text
        if name not in self.filled:
            self.filled[name] = self._new(name)
        return self.filled[name]

    def _new(self, name: str) -> str:
        rng = self.rng
        match name:
            case "order":
                return f"SD-{rng.randrange(20000, 99999)}"
            case "invoice":
                return f"INV-{rng.randrange(1000, 9999)}"
            case "tracking":
                letters = "".join(rng.choices(ID_LETTERS, k=3))
                return f"PCL-{rng.randrange(100, 999)}{letters}"
            case "username":
                bird = rng.choice(["wren", "heron", "plover", "dunlin", "curlew"])
                return f"{bird}_{rng.choice(['hill', 'lane', 'mill'])}"
            case "amount":
                whole = rng.randrange(8, 640)
                return rng.choice([f"${whole}.{rng.randrange(10, 99)}", f"${whole}"])
            case _:
                taken = self.filled.get("product")
                return str(rng.choice([p for p in phrases()["products"] if p != taken]))


@cache
def phrases() -> dict[str, Any]:
    """Return the grammar."""
    path = Path(__file__).with_name("phrases.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def priority_of(impact: str, timing: str | None) -> str:
    """Return the priority by the rules that the app's prompt states."""
    if impact == "danger" or timing == "now":
        return "urgent"
    if timing == "later":
        return "low"
    if impact == "blocked" or timing == "week":
        return "high"
    return "low" if impact == "question" else "normal"


def tickets(count: int, *, seed: int) -> list[Ticket]:
    """Return `count` tickets, no two with the same body."""
    rng = random.Random(seed)
    made: dict[str, Ticket] = {}
    while len(made) < count:
        style = rng.choices(list(STYLES), [s.share for s in STYLES.values()])[0]
        ticket = _ticket(Draft(rng, style), _story(rng, style))
        made.setdefault(ticket.body, ticket)
    return list(made.values())


def _story(rng: random.Random, style: str) -> Story:
    label = rng.choices(list(LABELS), list(LABELS.values()))[0]
    issues = [issue for issue in phrases()["issue"] if issue["label"] == label]
    issue = rng.choices(issues, [1 if "straddles" in i else 2 for i in issues])[0]
    said = rng.choice(issue["said"])
    two = rng.random() < TWO_PROBLEMS
    calm = "frustrated" if rng.random() < FRUSTRATED else "calm"
    harmless = issue["impact"] in {"nuisance", "blocked"}
    return Story(
        issue=issue,
        said=said,
        second=_companion(rng, issue, said) if two else None,
        blurred=two and rng.random() < BLURRED,
        timing=rng.choices(list(TIMINGS), list(TIMINGS.values()))[0],
        idle=rng.random() < (0.15 if STYLES[style].long else 0.08),
        no_danger=harmless and rng.random() < NO_DANGER,
        action=rng.choices(issue["actions"], [6, 3, 1][: len(issue["actions"])])[0],
        mood="angry" if style == "angry" else calm,
    )


def _companion(rng: random.Random, issue: Issue, said: str) -> Issue:
    """Return a problem of another label, in a sentence that adds no number."""
    choices = [
        {**other, "said": sentence}
        for other in phrases()["issue"]
        if other["label"] != issue["label"]
        and other["impact"] not in {"danger", "question"}
        and "straddles" not in other
        for sentence in other["said"]
        if _slots(sentence) <= _slots(said) & {"product"}
    ]
    label = rng.choice(sorted({other["label"] for other in choices}))
    return rng.choice([other for other in choices if other["label"] == label])


def _slots(sentence: str) -> set[str]:
    """Return the slots of `sentence` that say something of the ticket."""
    return set(re.findall(r"\{(\w+)\}", sentence)) - set(phrases()["fill"])


def _ticket(draft: Draft, story: Story) -> Ticket:
    core = draft.fill(_core(draft, story))
    parts = [core, *_around(draft, story), *_numbers(draft, story.issue["label"])]
    body = _arrange(draft, parts, _ask(draft, story))
    return Ticket(
        subject=_spell(draft, _subject(draft, story)),
        body=_spell(draft, body),
        label=story.issue["label"],
        rival=story.rival,
        blurred=story.blurred,
        priority=priority_of(story.issue["impact"], story.timing),
        delicate=story.delicate,
        facts=_facts(draft, story),
        calls=_calls(draft, story.issue),
    )


def _core(draft: Draft, story: Story) -> str:
    """Return the problem and, where there are two, which one comes first."""
    first = story.said
    if draft.chance(STYLES[draft.style].more):
        first += " " + draft.rng.choice(story.issue["more"])
    if story.second is None:
        return first
    ways = phrases()["two"]
    template: str = draft.rng.choice([*ways["first_last"], *ways["first_first"]])
    return template.replace("{first}", first).replace("{second}", story.second["said"])


def _around(draft: Draft, story: Story) -> Iterator[str]:
    """Yield what is said besides the problem."""
    grammar, label, impact = phrases(), story.issue["label"], story.issue["impact"]
    for cue, there in (
        (story.timing, story.timing),
        ("idle", story.idle),
        ("no_danger", story.no_danger),
    ):
        if there:
            yield draft.say(grammar["timing"][cue])
    if draft.chance(0.15, 0.08):
        others = [name for name in LABELS if name not in {label, story.rival}]
        yield draft.say(grammar["distractors"][draft.rng.choice(others)])
    if draft.chance(0.42):
        yield draft.say(grammar["impact"][impact])
    yield from _talk(draft, story)
    if draft.chance(0.12, 0.05):
        yield draft.say(grammar["chatter"]["said"])
    if story.mood != "calm" or draft.chance(0.1, 0):
        yield draft.say(grammar["moods"][story.mood])


def _talk(draft: Draft, story: Story) -> list[str]:
    """Return what people say of such problems, and in a blurred ticket of the rival's."""
    talk, label = phrases()["talk"], story.issue["label"]
    # Who only asks about returns has not returned anything.
    if story.issue["impact"] == "question" and label != "product_question":
        return []
    whole, part = divmod(STYLES[draft.style].talk, 1)
    said: list[str] = draft.rng.sample(talk[label], int(whole) + draft.chance(part))
    return [*said, draft.rng.choice(talk[story.rival])] if story.blurred else said


def _numbers(draft: Draft, label: str) -> list[str]:
    """Return sentences that give a number; the label decides which are likely."""
    share = {"order": 0.34, "invoice": 0.0, "tracking": 0.0}
    if label in {"account", "product_question"}:
        share["order"] = 0.1
    if label in {"delivery", "returns"}:
        share["tracking"] = 0.28
    if label in {"billing", "returns"}:
        share["invoice"] = 0.1
    return [
        draft.say(phrases()["numbers"][name])
        for name, chance in share.items()
        if name not in draft.filled and draft.chance(chance)
    ]


def _ask(draft: Draft, story: Story) -> str:
    """Return what is asked for; what goes without saying is often left out."""
    expected = story.action == story.issue["actions"][0]
    if expected and not draft.chance(0.25):
        return ""
    return draft.say(phrases()["asks"][story.action])


def _subject(draft: Draft, story: Story) -> str:
    """Return a subject; who has two problems names neither."""
    told = phrases()["subjects"]
    general = story.second is not None or draft.chance(0.5)
    text: str = draft.rng.choice(told["any"] if general else told[story.issue["label"]])
    # A subject adds no number or product that the text does not have.
    return draft.fill(text) if _slots(text) <= set(draft.filled) else "Help"


def _arrange(draft: Draft, parts: list[str], ask: str) -> str:
    """Return the body: the problem anywhere, what is asked for mostly last."""
    draft.rng.shuffle(parts)
    if ask:
        parts.insert(len(parts) if draft.chance(0.8) else 0, ask)
    opening = draft.say(phrases()["openings"][draft.style])
    closing = draft.say(phrases()["closings"][draft.style])
    return "\n".join(filter(None, [opening, " ".join(parts), closing]))


def _spell(draft: Draft, text: str) -> str:
    """Return `text` in this customer's spelling; numbers stay as they are."""
    if _habit(draft, "american", 0.5):
        for british, american in phrases()["american"].items():
            text = re.sub(rf"\b{british}\b", american, text)
    if _habit(draft, "careless", 0.3):
        text = re.sub(r"\b[a-z]{5,}\b", lambda word: _typo(draft.rng, word[0]), text)
    if draft.style == "terse" and _habit(draft, "lower", 0.4):
        text = re.sub(r"\S+", lambda word: _lower(word[0]), text)
    if draft.style == "angry" and _habit(draft, "loud", 0.4):
        text = re.sub(r"\b(not|still|never)\b", lambda word: word[0].upper(), text)
    return text


def _habit(draft: Draft, name: str, share: float) -> bool:
    """Return whether this customer has a habit, in subject and body alike."""
    if name not in draft.filled:
        draft.filled[name] = "yes" if draft.chance(share) else ""
    return bool(draft.filled[name])


def _typo(rng: random.Random, word: str) -> str:
    known = " ".join(phrases()["products"]).lower().split()
    if rng.random() > TYPO or word in known:
        return word
    at = rng.randrange(1, len(word) - 1)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    dropped, doubled = word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]
    return rng.choice([swapped, dropped, doubled])


def _lower(word: str) -> str:
    return word if any(letter.isdigit() for letter in word) else word.lower()


def _facts(draft: Draft, story: Story) -> dict[str, Any]:
    amount = draft.filled.get("amount")
    return {
        "order_id": draft.filled.get("order"),
        "product": draft.filled.get("product"),
        "amount_usd": float(amount[1:]) if amount else None,
        "action": story.action,
        "upset": story.mood != "calm",
    }


def _calls(draft: Draft, issue: Issue) -> tuple[tuple[str, dict[str, str]], ...]:
    calls = [
        (tool, {argument: draft.filled[name]})
        for name, (tool, argument) in TOOL_OF_NUMBER.items()
        if name in draft.filled
    ]
    if "topic" in issue:
        calls.append(("search_help", {"topic": issue["topic"]}))
    return tuple(calls)
