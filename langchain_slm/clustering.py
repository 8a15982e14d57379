"""Examples to tasks, by the structure of their requests. Pure: no I/O, no model calls.

A task is a site x the tools offered x the response schema x the template of the system
prompt. What separates tasks is known before the answer, so that `task_of` finds at run
time what `cluster` found in the records. The user's text separates nothing: it is the
task's input.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import count
from typing import NamedTuple, TypeVar

from langchain_slm.schema import (
    Answer,
    Example,
    JsonObject,
    Request,
    Shape,
    Task,
    content_hash,
    field_names,
)

# Stands for what varies: words of a template, all of a tool set or schema. It cannot be
# the name of a tool (letters, digits, `_` and `-`) nor a hash.
OPEN = "<*>"

# A site with more kinds of tool sets or templates than people write by hand makes them
# at run time. Of those only a frequent kind stands alone: a twentieth of the examples,
# and five of them, for a few repeat by chance (of 100 generated tool sets one came three
# times). All others are one open kind.
MAX_KINDS = 20
MIN_REPEATS = 5
FEW_KINDS = 5  # so few are kinds even if each was seen once: nothing says otherwise

# Two prompts are of one template if at least half of their characters, blanks aside, are
# in words that they share. Characters rather than words: "you are a" says little.
# Frequent prompts were rather written than filled in: with one of those another is one
# only if nearly all is the same, a language apart.
MIN_SHARED = 0.5
MIN_SHARED_OF_FREQUENT = 0.8
# The least fixed characters by which a template is recognised inside a longer prompt:
# one more than "You are a helpful" has, the opening of any prompt.
MIN_FIXED_CHARACTERS = 15
# A word of a prompt that is not frequent is fixed if a run of three words around it
# recurs (single words recur in any text) in a fiftieth of such prompts: in a sample of
# 500 the least kind that stands alone has 25 +- 5, well above the 10 asked.
RUN = 3
RECURRING_SHARE = 0.02

# Bounds on work.
MAX_PROMPTS = 500  # of one tool set, to learn templates from
MAX_TEMPLATES = 50  # to compare them with
MAX_WORDS = 1000  # that are read of a prompt

# A closed set: few short answers that come again and again. 50 examples show each label
# of 5 % with a probability of 92 %; below 5 a label there is nothing to learn it from.
# One answer in a hundred may be outside: models add a word at times.
MAX_LABELS = 20
MAX_LABEL_CHARACTERS = 80
MIN_CLOSED_SET_EXAMPLES = 50
MIN_EXAMPLES_PER_LABEL = 5
MAX_OUTSIDE_SHARE = 0.01

# Nobody answers with an `answer` field by chance, but models asked for one leave it out
# at times: in recorded answers of nine models to three such prompts 84-100 % had it.
MIN_JSON_SHARE = 0.8

_Kind = TypeVar("_Kind")
_VARIABLE_WORD = re.compile(r"\d|^[\"'`“\u2018«]|<\*>")
_MARK = re.compile(r"[\d\"'`“\u2018«<]")  # any of which a variable word has one
_ANSWER_FIELD = re.compile(r'"answer"\s*:')


class _Form(NamedTuple):
    """What is known of a request before its answer."""

    tools: tuple[str, ...]
    schema: str | None
    prompt: str

    @property
    def offer(self) -> _Form:
        """The same form whatever the prompt."""
        return self._replace(prompt="")

    @property
    def open(self) -> _Form:
        """The same form with tools and schema as things that vary."""
        tools = (OPEN,) if self.tools else ()
        return self._replace(tools=tools, schema=self.schema and OPEN)


class _Template(NamedTuple):
    """A template taken apart: text between its gaps, words, characters in words."""

    parts: tuple[str, ...]
    words: Mapping[str, int]
    weight: int


def cluster(examples: Sequence[Example]) -> tuple[Task, ...]:
    """Return the tasks of `examples`, by site, the largest task of a site first.

    Tasks are told apart by requests alone, of all splits. What kind of answer a task
    has is read from its train and validation examples, and from its test examples
    only where it has no others: what is later tested stays unseen.

    Every example belongs to a task: `assign` tells which.
    """
    by_site: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_site[example.site].append(example)
    return tuple(
        task
        for site in sorted(by_site)
        for task in _tasks_of_site(site, by_site[site], by_site)
    )


def assign(examples: Iterable[Example], tasks: Sequence[Task]) -> tuple[Example, ...]:
    """Return the examples with their `task` set; empty where no task is theirs.

    It is `task_of` for each example: no answer is looked at.
    """
    by_site: defaultdict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_site[task.site].append(task)
    found: dict[tuple[str, _Form], str] = {}
    assigned = []
    for example in examples:
        key = (example.site, _form(example.request))
        if key not in found:
            task_found = _find(key[1], by_site[example.site])
            found[key] = task_found.task_id if task_found else ""
        assigned.append(example.model_copy(update={"task": found[key]}))
    return tuple(assigned)


def task_of(request: Request, site: str, tasks: Sequence[Task]) -> Task | None:
    """Return the task that a request belongs to, from what is known before its answer.

    Tools and response schema must be those of a task. Among the tasks that remain it is
    the one whose template shares the most with the system prompt. None if tools or
    schema were never seen at the site, or the prompt is like no template: such a
    call is none that was tested, and the reference should answer it.

    Args:
        request: What a model is asked.
        site: Where.
        tasks: As `cluster` returned them; of any sites.
    """
    tasks_here = [task for task in tasks if task.site == site]
    return _find(_form(request), tasks_here) if tasks_here else None


def _find(form: _Form, tasks: Sequence[Task]) -> Task | None:
    for offer in (form, form.open):
        by_template = {
            task.template: task
            for task in tasks
            if (task.tools, task.response_schema) == (offer.tools, offer.schema)
        }
        if by_template:
            return by_template.get(_nearest(form.prompt, by_template))
    return None


def _tasks_of_site(
    site: str, examples: Iterable[Example], sites: Collection[str]
) -> list[Task]:
    by_form: defaultdict[_Form, list[Example]] = defaultdict(list)
    for example in examples:
        by_form[_form(example.request)].append(example)
    by_task: defaultdict[_Form, list[Example]] = defaultdict(list)
    for form, task_form in _task_forms(by_form).items():
        by_task[task_form].extend(by_form[form])
    largest_first = sorted(
        by_task, key=lambda f: (-len(by_task[f]), f.prompt, f.tools, f.schema or "")
    )
    return [
        _task(task_id, site, form, by_task[form])
        for form, task_id in zip(largest_first, _task_ids(site, sites), strict=False)
    ]


def _task_ids(site: str, sites: Collection[str]) -> Iterator[str]:
    """Yield `site`, `site~2`, ... without the names of other sites."""
    yield site
    for number in count(2):
        if (task_id := f"{site}~{number}") not in sites:
            yield task_id


def _task(task_id: str, site: str, form: _Form, members: Sequence[Example]) -> Task:
    seen = [each for each in members if each.split != "test"] or members
    texts = [each.answer.text.strip() for each in seen]
    labels = () if form.tools else _closed_set(texts)
    return Task(
        task_id=task_id,
        site=site,
        template=form.prompt,
        tools=form.tools,
        response_schema=form.schema,
        shape=_shape(members, texts, labels),
        labels=labels,
        examples=len(members),
    )


def _shape(
    members: Iterable[Example], texts: Sequence[str], labels: Sequence[str]
) -> Shape:
    """Return the kind of answer: what the requests ask for, else what the texts show."""
    requests = [example.request for example in members]
    if all(request.tools for request in requests):
        return "tool_call"
    formats = [request.response_format or {} for request in requests]
    if all(each.get("type") == "json_schema" for each in formats):
        return "structured"
    if labels:
        return "label"
    # Not parsed: the LaTeX in such answers is often invalid JSON, and yet evaluated.
    objects = [text.partition("{")[2] for text in texts]
    with_answer = sum(_ANSWER_FIELD.search(each) is not None for each in objects)
    return "json" if with_answer >= MIN_JSON_SHARE * len(texts) else "text"


def _closed_set(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the labels, sorted, if the texts are from a closed set; else nothing.

    One label is no set: the second may only not have come up yet.
    """
    labels = {
        text: n
        for text, n in Counter(texts).items()
        if n > 1 and 0 < len(text) <= MAX_LABEL_CHARACTERS
    }
    enough = max(MIN_CLOSED_SET_EXAMPLES, MIN_EXAMPLES_PER_LABEL * len(labels))
    outside = len(texts) - sum(labels.values())
    closed = (
        1 < len(labels) <= MAX_LABELS  # a set larger than this is seldom complete
        and len(texts) >= enough
        and outside <= MAX_OUTSIDE_SHARE * len(texts)
    )
    return tuple(sorted(labels)) if closed else ()


def _form(request: Request) -> _Form:
    tools = {str(tool.get("function", {}).get("name", "")) for tool in request.tools}
    schema = _schema_hash(request.response_format)
    return _Form(tuple(sorted(tools)), schema, _masked(_system_prompt(request)))


def _schema_hash(response_format: JsonObject | None) -> str | None:
    """Return the hash of the schema's fields; clients rewrite all else on the wire."""
    if response_format is None or response_format.get("type") == "text":
        return None
    named = response_format.get("json_schema")
    proper = named.get("schema") if isinstance(named, dict) else None
    return content_hash(field_names(proper) if proper else response_format)


def _system_prompt(request: Request) -> str:
    """Return the texts of system and developer messages; empty where there are none."""
    return " ".join(
        content
        if isinstance(content := message.get("content"), str)
        else Answer(message=message).text
        for message in request.messages
        if message.get("role") in ("system", "developer")
    )


@lru_cache(maxsize=256)  # most prompts are constants of the app; bounded, some are long
def _masked(prompt: str) -> str:
    """Return the prompt's leading words, those with digits or quotes as gaps.

    Such words vary even where one value was seen: all records may be of one day.
    """
    words = prompt.split(maxsplit=MAX_WORDS)
    if len(words) > MAX_WORDS:
        words[MAX_WORDS:] = [OPEN]
    if not _MARK.search(prompt):  # nearly all prompts; spares a search in each word
        return " ".join(words)
    return _joined(OPEN if _VARIABLE_WORD.search(word) else word for word in words)


def _joined(words: Iterable[str]) -> str:
    """Return the words as text, a run of gaps as one gap."""
    joined: list[str] = []
    for word in words:
        if word != OPEN or joined[-1:] != [OPEN]:
            joined.append(word)
    return " ".join(joined)


def _task_forms(by_form: Mapping[_Form, Sequence[Example]]) -> dict[_Form, _Form]:
    """Return the form of the task that each form belongs to."""
    offers: Counter[_Form] = Counter()
    for form, members in by_form.items():
        offers[form.offer] += len(members)
    standing = _standing(offers)
    task_forms = {f: f.offer if f.offer in standing else f.offer.open for f in by_form}
    prompts: defaultdict[_Form, Counter[str]] = defaultdict(Counter)
    for form, members in by_form.items():
        prompts[task_forms[form]][form.prompt] += len(members)
    templates = {offer: _templates(counted) for offer, counted in prompts.items()}
    for form, offer in task_forms.items():
        template = _nearest(form.prompt, templates[offer])
        task_forms[form] = offer._replace(prompt=template)
    return task_forms


def _standing(sizes: Mapping[_Kind, int]) -> set[_Kind]:
    """Return the kinds that stand alone; the others are one open kind."""
    if len(sizes) <= max(FEW_KINDS, min(MAX_KINDS, sum(sizes.values()) // 2)):
        return set(sizes)
    return _frequent(sizes)


def _frequent(sizes: Mapping[_Kind, int]) -> set[_Kind]:
    least = max(MIN_REPEATS, sum(sizes.values()) / MAX_KINDS)
    return {kind for kind, n in sizes.items() if n >= least}


def _templates(prompts: Mapping[str, int]) -> set[str]:
    """Return the templates of masked prompts, given how many examples each has.

    A rare template stays only for prompts that no frequent one takes.
    """
    ranked = sorted(prompts.items(), key=lambda item: (-item[1], content_hash(item[0])))
    sample = dict(ranked[:MAX_PROMPTS])
    merged = _merged(_without_rare_words(sample))
    often = _frequent(_sizes(sample, merged)) - {OPEN}
    other = {p: n for p, n in sample.items() if _nearest(p, often) == OPEN}
    templates = often | set(_sizes(other, merged - often))
    return _standing(_sizes(sample, templates)) - {OPEN}


def _sizes(prompts: Mapping[str, int], templates: Collection[str]) -> Counter[str]:
    """Return how many examples each template has, `OPEN` those like none of them."""
    sizes: Counter[str] = Counter()
    for prompt, n in prompts.items():
        sizes[_nearest(prompt, templates)] += n
    return sizes


def _merged(skeletons: Mapping[str, int]) -> set[str]:
    """Return what the prompts that are alike have in common.

    The longest go first: a short one that begins like them would take them.
    """
    frequent = _frequent(skeletons)
    rank = {name: (name not in frequent, -_parsed(name).weight) for name in skeletons}
    written: set[str] = set()
    filled_in: set[str] = set()
    for skeleton in sorted(skeletons, key=lambda name: (rank[name], name)):
        if _merge(skeleton, written, least=MIN_SHARED_OF_FREQUENT):
            continue
        if skeleton in frequent:
            written.add(skeleton)
        elif not _merge(skeleton, filled_in, least=MIN_SHARED):
            filled_in |= {skeleton} if len(filled_in) < MAX_TEMPLATES else set()
    every = written | filled_in
    return {template for template in every if not _is_special_case(template, filled_in)}


def _merge(skeleton: str, templates: set[str], *, least: float) -> bool:
    """Take the skeleton into the template that is its own, if there is one."""
    near = _nearest(skeleton, templates, least=least)
    if near == OPEN:
        return False
    templates.remove(near)
    templates.add(_shared_words(near, skeleton))
    return True


def _is_special_case(template: str, templates: set[str]) -> bool:
    """Whether a more general template takes its prompts and is much like it."""
    return any(
        _recognises(each, template)
        and _likeness(_parsed(each), _parsed(template)) >= MIN_SHARED
        for each in templates - {template}
    )


def _without_rare_words(sample: Mapping[str, int]) -> Counter[str]:
    """Return the prompts with their rare words as gaps, and how many examples each has.

    A frequent prompt has no rare words. Without this step prompts that hold a
    retrieved text have too little in common to be recognised.
    """
    seldom = sample.keys() - _frequent(sample)
    found = Counter(run for prompt in seldom for run in set(_runs(prompt.split())))
    least = max(2, len(seldom) * RECURRING_SHARE)
    fixed = {run for run, n in found.items() if n >= least}
    skeletons: Counter[str] = Counter()
    for prompt, n in sample.items():
        can_tell = prompt in seldom and len(seldom) > MAX_KINDS
        skeletons[_recurring(prompt.split(), fixed) if can_tell else prompt] += n
    del skeletons[OPEN]
    return skeletons


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return all runs of words; word i is in the runs i, i + 1, ..., i + RUN - 1."""
    edge = [""] * (RUN - 1)
    padded = [*edge, *words, *edge]
    return [tuple(padded[i : i + RUN]) for i in range(len(words) + RUN - 1)]


def _recurring(words: Sequence[str], fixed: Collection[tuple[str, ...]]) -> str:
    known = [run in fixed for run in _runs(words)]
    return _joined(w if any(known[i : i + RUN]) else OPEN for i, w in enumerate(words))


def _shared_words(one: str, other: str) -> str:
    """Return the words that both have in the same order, with gaps between."""
    # A gap is no word: two gaps are no reason to line up what is around them.
    left, right = one.replace(OPEN, "").split(" "), other.split()
    words, at = [], (0, 0)
    # `autojunk` stays on: without it the bars of long tables make this quadratic.
    for block in SequenceMatcher(None, left, right).get_matching_blocks():
        if (block.a, block.b) != at:
            words.append(OPEN)
        at = (block.a + block.size, block.b + block.size)
        words.extend(left[block.a : at[0]])
    return _joined(words)


def _nearest(
    prompt: str, templates: Collection[str], *, least: float = MIN_SHARED
) -> str:
    """Return the template of a masked prompt, `OPEN` if it is like none.

    It is the one with the most fixed characters of those that recognise the prompt,
    else the one that it is most like, if `least` of all characters are shared.
    """
    if prompt in templates:
        return prompt
    heaviest_first = sorted(templates, key=lambda name: (-_parsed(name).weight, name))
    for template in heaviest_first:
        if _recognises(template, prompt):
            return template
    parsed = _taken_apart(prompt)
    likeness = {name: _likeness(_parsed(name), parsed) for name in heaviest_first}
    best = max(heaviest_first, key=lambda name: likeness[name], default=OPEN)
    return best if likeness.get(best, 0) >= least else OPEN


def _recognises(template: str, prompt: str) -> bool:
    """Whether the prompt is the template with something in its gaps."""
    parsed = _parsed(template)
    return parsed.weight >= MIN_FIXED_CHARACTERS and _fits(parsed.parts, f" {prompt} ")


def _taken_apart(text: str) -> _Template:
    words = Counter(word for word in text.split() if word != OPEN)
    weight = sum(len(word) * n for word, n in words.items())
    return _Template(tuple(f" {text} ".split(OPEN)), words, weight)


_parsed = lru_cache(maxsize=512)(_taken_apart)  # templates come again, prompts do not


def _fits(parts: Sequence[str], text: str) -> bool:
    """Whether the parts follow one another in the text, from its start to its end.

    Each part begins and ends with a blank, which may be the blank of its neighbour.
    """
    head, *rest = parts
    if not rest:
        return head == text
    *inner, tail = rest
    if not text.startswith(head) or not text.endswith(tail):
        return False
    position = len(head) - 1
    for part in inner:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part) - 1
    return position <= len(text) - len(tail)


def _likeness(one: _Template, other: _Template) -> float:
    """Return the share of all characters that are in words of both, in [0, 1]."""
    words, others = one.words, other.words
    both = words.keys() & others.keys()
    shared = sum(len(word) * min(words[word], others[word]) for word in both)
    total = one.weight + other.weight
    return 2 * shared / total if total else 0.0
