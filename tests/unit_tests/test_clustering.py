import json
import random
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from langchain_slm.clustering import assign, cluster, task_of
from langchain_slm.schema import Answer, Example, Request, Task, field_names

DATA = Path(__file__).parents[2].parent / "shared" / "data"
_numbers = count()

PLAN = "You are a planner. Break the task into steps."
GRADE = "You are a grader. Score the answer."


def example(
    system: Any = None,
    *,
    site: str = "agent",
    tools: tuple[str, ...] = (),
    response_format: dict[str, Any] | None = None,
    answer: str = "fine",
    split: str = "train",
    user: str = "go on",
) -> Example:
    number = next(_numbers)
    prompt = [] if system is None else [{"role": "system", "content": system}]
    request = Request(
        messages=(*prompt, {"role": "user", "content": user}),
        tools=tuple({"type": "function", "function": {"name": name}} for name in tools),
        response_format=response_format,
    )
    return Example(
        example_id=str(number),
        site=site,
        thread_id=str(number),
        split=split,
        model="gpt-ref",
        provider="openai",
        request=request,
        answer=Answer(message={"role": "assistant", "content": answer}),
    )


def schema(*fields: str, name: str = "answer", strict: bool = True) -> dict[str, Any]:
    properties = {field: {"type": "string"} for field in fields}
    wanted = {"type": "object", "properties": properties}
    inner = {"name": name, "strict": strict, "schema": wanted}
    return {"type": "json_schema", "json_schema": inner}


def templates(examples: list[Example]) -> list[str]:
    return [task.template for task in cluster(examples)]


def only_task(examples: list[Example]) -> Task:
    (task,) = cluster(examples)
    return task


# What separates tasks


def test_no_examples_have_no_tasks():
    assert cluster([]) == ()
    assert assign([], []) == ()


def test_a_site_with_one_prompt_is_one_task_under_its_name():
    task = only_task([example(PLAN, answer=f"{i}") for i in range(3)])

    assert task == Task(
        task_id="agent", site="agent", template=PLAN, shape="text", examples=3
    )


def test_sites_are_separate_tasks():
    tasks = cluster([example(PLAN, site="b"), example(PLAN, site="a")])

    assert [task.task_id for task in tasks] == ["a", "b"]


def test_the_users_text_separates_nothing():
    task = only_task([example(user=f"{i} " * i) for i in range(30)])

    assert (task.template, task.examples) == ("", 30)


def test_plan_and_grade_of_one_site_are_two_tasks():
    tasks = cluster([*[example(PLAN)] * 3, *[example(GRADE)] * 2])

    assert [(t.task_id, t.template, t.examples) for t in tasks] == [
        ("agent", PLAN, 3),
        ("agent~2", GRADE, 2),
    ]


def test_a_site_called_with_and_without_system_prompt_has_two_tasks():
    assert templates([example(), example(), example(PLAN)]) == ["", PLAN]


def test_developer_messages_and_text_parts_are_system_prompts_too():
    parts = [{"type": "text", "text": "Be brief."}, {"type": "image_url"}]
    request = Request(messages=({"role": "developer", "content": parts},))
    by_developer = example().model_copy(update={"request": request})

    assert only_task([by_developer, example("Be brief.")]).template == "Be brief."


def test_a_system_message_without_content_is_no_prompt():
    request = Request(messages=({"role": "system", "content": None},))

    assert only_task([example().model_copy(update={"request": request})]).template == ""


def test_tool_sets_separate_tasks_whatever_their_order():
    tasks = cluster(
        [
            example(tools=("search", "buy")),
            example(tools=("buy", "search")),
            example(tools=("search",)),
            example(),
        ]
    )

    assert [(t.tools, t.shape, t.examples) for t in tasks] == [
        (("buy", "search"), "tool_call", 2),
        ((), "text", 1),
        (("search",), "tool_call", 1),
    ]


def test_response_schemas_separate_tasks_but_not_their_names():
    tasks = cluster(
        [
            example(response_format=schema("city", name="one")),
            example(response_format=schema("city", name="two", strict=False)),
            example(response_format=schema("total")),
            example(response_format={"type": "json_object"}),
            example(response_format={"type": "text"}),
            example(),
        ]
    )

    assert sorted((t.shape, t.response_schema is None, t.examples) for t in tasks) == [
        ("structured", False, 1),
        ("structured", False, 2),
        ("text", False, 1),
        ("text", True, 2),
    ]


def test_ids_go_by_size_and_avoid_the_names_of_other_sites():
    tasks = cluster(
        [
            *[example(PLAN, site="a")] * 3,
            *[example(GRADE, site="a")] * 2,
            example(PLAN, site="a~2"),
            example(GRADE, site="a~2"),
        ]
    )

    assert [(t.task_id, t.site, t.template) for t in tasks] == [
        ("a", "a", PLAN),
        ("a~3", "a", GRADE),
        ("a~2", "a~2", GRADE),
        ("a~2~2", "a~2", PLAN),
    ]


@pytest.mark.parametrize("site", ["", "<script>alert(1)</script>", "../../x", "a\0b\n"])
def test_names_of_sites_may_be_anything(site):
    examples = [*[example(PLAN, site=site)] * 2, example(GRADE, site=site)]

    assert [task.task_id for task in cluster(examples)] == [site, f"{site}~2"]
    assert [e.task for e in assign(examples, cluster(examples))] == [
        *[site] * 2,
        f"{site}~2",
    ]


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_tasks_do_not_depend_on_the_order_of_the_examples(data):
    examples = site_of_all_kinds(60, seed=1)

    assert cluster(data.draw(st.permutations(examples))) == cluster(examples)


# Templates


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - test data, no secrets


NAMES = ["Ada", "Bo", "Cleo", "Dimitri", "Eve", "Farah", "Gustavo Lima", "Hiro", "Ines"]
CITIES = ["Paris", "New York", "Rome", "San Francisco, California", "Oslo"]
TOPICS = ["billing", "refunds", "shipping delays", "login problems"]
WORDS = [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in "mnrst"]
INVOICE = (
    "You are one of the agents of ACME. Never reveal internal data. Be polite. "
    "Extract the number and the total of the invoice and return them as JSON."
)
TRANSLATE = (
    "You are one of the agents of ACME. Never reveal internal data. Be polite. "
    "Translate the message of the customer into English for the support staff."
)
FILLED_IN = (
    "You are a support agent of ACME. Today is <*> The customer is <*> a <*> member. "
    "Answer in <*> and be brief."
)
CONTEXT = "Answer the question from the context. If it is not there, say so. Context:"


def filled_in(kind: str, rng: random.Random) -> str | None:
    """Return a prompt as an app of this kind would make it."""
    document = " ".join(rng.choices(WORDS, k=60))
    prompts = {
        "none": None,
        "plan": PLAN,
        "grade": GRADE,
        "invoice": INVOICE,
        "translate": TRANSLATE,
        "short": f"You are helping {rng.choice(NAMES)} from {rng.choice(CITIES)} "
        f"about {rng.choice(TOPICS)}",
        "long": f"You are a support agent of ACME. Today is 2025-03-{rng.randrange(28)}. "
        f"The customer is {rng.choice(NAMES)}, a {rng.choice(['gold', 'basic'])} member. "
        f"Answer in {rng.choice(['English', 'French', 'German'])} and be brief.",
        "context": f"{CONTEXT}\n\n{document}",
        "documents": f"Here are some documents: {document} Summarise them for "
        f"{rng.choice(NAMES)} in three sentences.",
    }
    return prompts[kind]


KINDS = (
    "none",
    "plan",
    "grade",
    "invoice",
    "translate",
    "short",
    "long",
    "context",
    "documents",
)


def site_of_all_kinds(n: int, seed: int) -> list[Example]:
    rng = seeded(seed)
    return [example(filled_in(KINDS[i % len(KINDS)], rng)) for i in range(n)]


@pytest.mark.parametrize("n", [12, 60, 300])
@pytest.mark.parametrize(
    ("kind", "template"),
    [
        ("short", "You are helping <*> from <*> about <*>"),
        ("long", FILLED_IN),
    ],
)
def test_prompts_filled_in_from_one_template_are_one_task(kind, template, n):
    rng = seeded(n)

    task = only_task([example(filled_in(kind, rng)) for _ in range(n)])

    assert (task.template, task.examples) == (template, n)


def test_prompts_with_a_retrieved_text_are_one_task():
    rng = seeded(0)

    task = only_task([example(filled_in("context", rng)) for _ in range(100)])

    assert task.template == f"{CONTEXT} <*>"


def test_numbers_and_quoted_words_are_gaps_even_if_they_never_changed():
    task = only_task([example('Today is 2025-03-01 , the user is "Ada" .')] * 3)

    assert task.template == "Today is <*> , the user is <*> ."
    tomorrow = example('Today is 2025-03-02 , the user is "Bo" .')
    assert task_of(tomorrow.request, "agent", [task]) == task


@pytest.mark.parametrize("times", [5, 50])
def test_written_prompts_that_share_boilerplate_are_two_tasks(times):
    examples = [*[example(INVOICE)] * times, *[example(TRANSLATE)] * times]

    assert sorted(templates(examples)) == [INVOICE, TRANSLATE]


def test_written_prompts_that_differ_in_a_word_are_one_task():
    prompts = [INVOICE.replace("JSON", language) for language in ("JSON", "XML", "YAML")]

    task = only_task([example(prompt) for prompt in prompts * 10])

    assert task.template.endswith("and return them as <*>")


def test_a_rare_prompt_does_not_make_one_task_of_two_written_ones():
    rare = (
        INVOICE.partition("Extract")[0] + "Say in one sentence what the customer wants."
    )
    examples = [*[example(INVOICE)] * 30, *[example(TRANSLATE)] * 30, example(rare)]

    assert sorted(templates(examples)) == [INVOICE, TRANSLATE]


def test_a_prompt_is_not_taken_by_a_more_general_one():
    rng = seeded(0)
    start = "You work for ACME as an agent."
    names = [f"{a}{b}" for a in "BCDF" for b in ("al", "er", "im", "os", "ud", "yn")]
    general = [
        example(f"{start} {' '.join(rng.choices(WORDS, k=60))}") for _ in range(50)
    ]
    special = [
        example(f"{start} Break the task of {name} into steps and say who does what.")
        for name in names
    ]

    assert templates([*general, *special]) == [
        f"{start} <*>",
        f"{start} Break the task of <*> into steps and say who does what.",
    ]


def test_a_site_of_many_kinds_is_told_apart_by_kind_on_examples_not_seen_before():
    seen, new = site_of_all_kinds(900, seed=1), site_of_all_kinds(900, seed=2)
    tasks = cluster(seen)

    assert len(tasks) == len(KINDS)
    for examples in (seen, new):
        of_kind = Counter(
            (KINDS[i % len(KINDS)], e.task) for i, e in enumerate(assign(examples, tasks))
        )
        assert sorted(of_kind.values()) == [100] * len(KINDS)


def test_prompts_that_have_nothing_in_common_are_one_open_task():
    rng = seeded(0)
    prompts = [" ".join(rng.choices(WORDS, k=40)) for _ in range(200)]

    task = only_task([example(prompt) for prompt in prompts])

    assert (task.template, task.examples) == ("<*>", 200)


def test_an_open_task_beside_a_written_prompt_takes_only_what_is_unlike_it():
    rng = seeded(0)
    others = [example(" ".join(rng.choices(WORDS, k=40))) for _ in range(100)]

    tasks = cluster([*others, *[example(PLAN)] * 100])

    assert {task.template: task.examples for task in tasks} == {"<*>": 100, PLAN: 100}


def test_more_templates_than_people_write_are_one_open_task_but_for_the_frequent():
    rng = seeded(0)
    rare = [" ".join(rng.choices(WORDS, k=20)) for _ in range(30)]

    tasks = cluster(
        [*[example(PLAN)] * 60, *[example(prompt) for prompt in rare for _ in "12"]]
    )

    assert {task.template: task.examples for task in tasks} == {PLAN: 60, "<*>": 60}


def test_prompts_of_which_most_came_once_are_one_open_task():
    rng = seeded(0)
    prompts = [" ".join(rng.choices(WORDS, k=20)) for _ in range(9)]

    assert templates([example(prompt) for prompt in [*prompts, *prompts[:3]]]) == ["<*>"]


def test_a_few_prompts_are_separate_tasks_even_if_each_came_once():
    rng = seeded(0)
    prompts = [" ".join(rng.choices(WORDS, k=20)) for _ in range(5)]

    assert templates([example(prompt) for prompt in prompts]) == sorted(prompts)


def test_gaps_are_not_lined_up_with_one_another():
    assert templates([example("7 assistants"), example("assistants 7")]) == [
        "<*> assistants <*>"
    ]


def test_of_a_very_long_prompt_only_the_beginning_is_read():
    prompts = [f"{PLAN} {'word ' * 1500}{end}" for end in ("a b c", "d e f")]

    task = only_task([example(prompt) for prompt in prompts])

    assert len(task.template.split()) == 1001
    assert task.template.endswith("word <*>")


def test_the_gap_sign_in_a_prompt_is_a_gap():
    assert templates([example("Use <*> as it is, or x<*>y , please.")]) == [
        "Use <*> as it is, or <*> , please."
    ]


def test_a_prompt_of_gaps_only_is_open():
    assert templates([example("12 34")]) == ["<*>"]
    assert sorted(templates([example("12"), example(PLAN)])) == ["<*>", PLAN]


def test_a_repeated_word_is_no_trouble():
    prompts = ["a " * n for n in range(300, 340)]

    assert sum(task.examples for task in cluster([example(p) for p in prompts])) == 40


# Tools and schemas made at run time


def test_more_tool_sets_than_people_write_are_one_open_task():
    task = only_task([example(tools=(f"tool_{i}",)) for i in range(30)])

    assert (task.tools, task.shape, task.examples) == (("<*>",), "tool_call", 30)


def test_a_frequent_tool_set_stands_alone_among_those_made_at_run_time():
    varied = [example(tools=(f"tool_{i}",)) for i in range(30)]
    fixed = [example(tools=("search",))] * 30
    tasks = cluster([*varied, *fixed, example()])

    assert {task.tools: task.examples for task in tasks} == {
        ("<*>",): 30,
        ("search",): 30,
        (): 1,
    }
    new = example(tools=("never_seen",)).request
    assert task_of(new, "agent", tasks).tools == ("<*>",)


def test_schemas_made_at_run_time_are_one_open_task():
    task = only_task([example(response_format=schema(f"f{i}")) for i in range(30)])

    assert (task.response_schema, task.shape) == ("<*>", "structured")


# Shapes and labels


def answered(answers: list[str], **fields: Any) -> list[Example]:
    return [example(answer=answer, **fields) for answer in answers]


def test_few_answers_that_come_again_are_a_closed_set():
    task = only_task(answered([*["no"] * 30, *[" yes\n"] * 20]))

    assert (task.shape, task.labels) == ("label", ("no", "yes"))


@pytest.mark.parametrize(
    "answers",
    [
        ["yes"] * 50,  # the second label may only not have come up yet
        [*["yes"] * 25, *["no"] * 24],  # 49 examples
        [f"label {i}" for i in range(21) for _ in range(20)],  # 21 labels
        [f"label {i}" for i in range(15) for _ in range(4)],  # 4 a label
        [*["yes"] * 30, *["x" * 81] * 30],  # too long
        [*["yes"] * 50, *["no"] * 48, "perhaps", "who knows"],  # 2 % outside
        [*["yes"] * 30, *["no"] * 29, "perhaps"],  # more than 1 % of 60 outside
    ],
)
def test_near_misses_of_a_closed_set_are_text(answers):
    task = only_task(answered(answers))

    assert (task.shape, task.labels) == ("text", ())


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        ([*["a"] * 25, *["b"] * 25], 2),
        ([f"label {i}" for i in range(20) for _ in range(5)], 20),
        ([*["a"] * 25, *["b" * 80] * 25], 2),
        ([*["yes"] * 50, *["no"] * 49, "perhaps"], 2),  # 1 % outside
    ],
)
def test_the_limits_of_a_closed_set_are_within_it(answers, labels):
    assert len(only_task(answered(answers)).labels) == labels


def test_a_structured_task_with_few_answers_has_labels_too():
    answers = ['{"urgent": true}', '{"urgent": false}'] * 30

    task = only_task(answered(answers, response_format=schema("urgent")))

    assert (task.shape, task.labels) == (
        "structured",
        ('{"urgent": false}', '{"urgent": true}'),
    )


def test_a_structured_task_with_many_answers_has_no_labels():
    answers = [f'{{"total": {i}}}' for i in range(60)]

    assert only_task(answered(answers, response_format=schema("total"))).labels == ()


def test_a_task_with_tools_is_tool_calling_even_if_all_answers_abstain():
    task = only_task(answered(["none fits", "cannot"] * 30, tools=("search",)))

    assert (task.shape, task.labels) == ("tool_call", ())


@pytest.mark.parametrize(
    ("with_field", "without", "shape"), [(80, 20, "json"), (79, 21, "text")]
)
def test_answers_that_hold_an_answer_field_are_json(with_field, without, shape):
    answers = [
        f'So:\n```json\n{{"why": "\\frac", "answer" : "{i}"}}\n```' for i in range(100)
    ]
    others = [f'no object, only "answer": {i}' for i in range(100)]

    assert only_task(answered(answers[:with_field] + others[:without])).shape == shape


def test_answers_of_the_test_split_are_not_looked_at():
    seen = answered(["yes", "no"] * 30, split="train")
    checked = answered(["yes", "no"] * 5, split="validation")
    hidden = answered(["unseen"] * 40, split="test")

    task = only_task([*seen, *checked, *hidden])

    assert (task.shape, task.labels, task.examples) == ("label", ("no", "yes"), 110)


def test_without_other_splits_the_test_split_tells_the_shape():
    task = only_task(answered(["yes", "no"] * 30, split="test"))

    assert (task.shape, task.labels) == ("label", ("no", "yes"))


# At run time


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 120),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, unique=True),
)
def test_every_example_has_a_task_and_the_run_time_agrees(seed, n, kinds):
    rng = seeded(seed)
    examples = [
        example(
            filled_in(rng.choice(kinds), rng),
            site=rng.choice("ab"),
            tools=rng.choice([(), (), ("search",), (f"t{rng.random()}",)]),
        )
        for _ in range(n)
    ]
    tasks = cluster(examples)
    assigned = assign(examples, tasks)

    assert all(task.task_id for task in tasks)
    counted = Counter(each.task for each in assigned)
    assert counted == {task.task_id: task.examples for task in tasks}
    assert [task_of(e.request, e.site, tasks).task_id for e in assigned] == [
        e.task for e in assigned
    ]


def test_the_answer_does_not_decide_the_task():
    tasks = cluster([*[example(PLAN)] * 2, example(GRADE)])
    same = [example(GRADE, answer=answer) for answer in ("steps", "score", "")]

    assert {e.task for e in assign(same, tasks)} == {"agent~2"}


def test_assigning_leaves_all_but_the_task_as_it_is():
    one = example(PLAN, split="validation")

    (assigned,) = assign([one], cluster([one]))

    assert assigned == one.model_copy(update={"task": "agent"})
    assert assigned.request is one.request


@pytest.mark.parametrize(
    "unknown",
    [
        example(PLAN, tools=("search",)),
        example(PLAN, response_format=schema("city")),
        example(PLAN, site="elsewhere"),
        example("Translate what follows into Danish, keeping all names."),
        example(),
    ],
)
def test_a_request_unlike_any_that_was_seen_has_no_task(unknown):
    tasks = cluster([example(PLAN), example(GRADE), example(GRADE, tools=("buy",))])

    assert task_of(unknown.request, unknown.site, tasks) is None
    assert assign([unknown], tasks)[0].task == ""


def test_a_prompt_that_was_edited_a_little_keeps_its_task():
    tasks = cluster([*[example(PLAN)] * 2, example(GRADE)])
    edited = example("You are a planner. Break the task into three short steps.")

    assert task_of(edited.request, "agent", tasks).template == PLAN


def test_of_two_templates_that_fit_the_more_specific_is_taken():
    general = Task(task_id="a", site="s", template="You work for ACME. <*>", shape="text")
    special = general.model_copy(
        update={"task_id": "b", "template": "You work for ACME. Answer <*> in Danish."}
    )
    request = example("You work for ACME. Answer Ada in Danish.").request

    assert task_of(request, "s", [general, special]) == special
    assert task_of(request, "s", [special, general]) == special


@pytest.mark.parametrize(
    ("prompt", "fits"),
    [
        ("Read the text of {} and that of {} too", True),
        ("Read the text of {} and that of too", True),
        ("Read the text of and that of {} too", True),
        ("Now Read the text of {} and that of {} too", False),
        ("Read the text of {} and that of {} too !", False),
        ("Read the text of {} and that of {}", False),
        ("and that of {} Read the text of {} too", False),
        ("Read the text of {} and that of{} too", False),
    ],
)
def test_a_template_fits_from_start_to_end(prompt, fits):
    # What is in the gaps is so long that likeness alone finds nothing.
    template = "Read the text of <*> and that of <*> too"
    task = Task(task_id="t", site="s", template=template, shape="text")
    request = example(prompt.replace("{}", " ".join(WORDS))).request

    assert task_of(request, "s", [task]) == (task if fits else None)


@pytest.mark.parametrize(
    ("prompt", "fits"),
    [
        ("Sum up {} and then {} and then {} and then stop", True),
        ("Sum up {} and then {} and then stop", False),
        ("Sum up {} and then stop", False),
    ],
)
def test_each_part_of_a_template_takes_its_own_place_in_the_prompt(prompt, fits):
    template = "Sum up <*> and then <*> and then <*> and then stop"
    task = Task(task_id="t", site="s", template=template, shape="text")
    request = example(prompt.replace("{}", " ".join(WORDS))).request

    assert task_of(request, "s", [task]) == (task if fits else None)


# Recorded suites


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def suite(name: str, model: str) -> list[Example]:
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"the recorded suite {name} is not beside this checkout")
    recorded = rows(folder / f"responses/{model}.jsonl")
    answers = {row["id"]: row["message"] for row in recorded}
    return [
        example(site=case["node"]).model_copy(
            update={
                "request": Request(
                    messages=tuple(case["messages"]), tools=tuple(case["tools"] or ())
                ),
                "answer": Answer(message=answers[case["id"]]),
            }
        )
        for case in rows(folder / "cases.jsonl")
    ]


def test_each_node_of_the_tool_calling_suite_is_one_task():
    tasks = cluster(suite("bfcl_v1", "gpt-4o-2024-08-06-FC"))

    assert [(task.task_id, task.shape, task.examples) for task in tasks] == [
        ("multiple", "tool_call", 100),
        ("parallel", "tool_call", 100),
        ("parallel_multiple", "tool_call", 100),
        ("relevance", "tool_call", 120),
        ("simple", "tool_call", 200),
    ]


def test_each_node_of_the_reasoning_suite_is_one_json_task():
    tasks = cluster(suite("zeroeval", "gpt-4o-2024-08-06"))

    assert [(task.task_id, task.shape, task.examples) for task in tasks] == [
        ("code_output_prediction", "json", 200),
        ("competition_math", "json", 100),
        ("math_word_problem", "json", 200),
    ]


def test_a_schema_is_the_same_task_as_its_class_and_as_its_wire_form():
    class Part(BaseModel):
        name: str

    class Order(BaseModel):
        """An order."""

        id: str | None = None
        parts: list[Part] = []

    strict = {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "parts"],
        "properties": {
            "id": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "parts": {
                "type": "array",
                "items": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
        },
    }
    assert field_names(Order.model_json_schema()) == {"id": {}, "parts": {"name": {}}}
    assert field_names(strict) == field_names(Order.model_json_schema())


def test_a_schema_that_refers_to_itself_has_an_end():
    schema = {
        "$ref": "#/$defs/Node",
        "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}}},
    }
    assert "next" in field_names(schema)


@pytest.mark.parametrize(
    "schema",
    [None, [], {"properties": []}, {"anyOf": 3, "items": "x"}, {"$ref": "#/nowhere"}],
)
def test_a_malformed_schema_has_no_fields(schema):
    assert field_names(schema) == {}
