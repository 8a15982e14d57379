import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_slm.routing import allowance
from langchain_slm.routing.allowance import Allowance, key_of, leave, take
from langchain_slm.routing.limits import Limits

LIMITS = Limits(max_attempts=4, deadline_s=60.0)
QUESTION = [SystemMessage("Be brief."), HumanMessage("Where to?")]
PLACE = "agent:4f1c"


@pytest.fixture(autouse=True)
def nothing_unfinished():
    allowance._unfinished.clear()
    yield
    allowance._unfinished.clear()


def now() -> float:
    return time.monotonic()


def failed(attempts_left=1, place=PLACE, question=QUESTION, limits=LIMITS):
    """Leave what a request has left that was given up."""
    left = take(limits, place, question, now())
    left.attempts = attempts_left
    leave(left, place, question)
    return left


def test_a_request_may_use_all_of_the_limits():
    fresh = take(LIMITS, PLACE, QUESTION, 1000.0)
    assert (fresh.attempts, fresh.deadline, fresh.usd) == (4, 1060.0, 0.0)


def test_a_request_without_a_deadline_has_none():
    assert take(Limits(deadline_s=None), PLACE, QUESTION, 1000.0).deadline is None


def test_the_same_question_from_the_same_place_goes_on_with_what_is_left():
    left = failed(attempts_left=1)
    assert take(LIMITS, PLACE, list(QUESTION), now()) is left


def test_a_question_that_is_equal_but_made_anew_goes_on_too():
    left = failed()
    again = [SystemMessage("Be brief."), HumanMessage("Where to?", id="new")]
    assert take(LIMITS, PLACE, again, now()) is left


@pytest.mark.parametrize(
    "question",
    [
        [HumanMessage("Where to?")],
        [SystemMessage("Be brief."), HumanMessage("Where from?")],
        [SystemMessage("Be brief."), AIMessage("Where to?")],
        [*QUESTION, AIMessage("Rome")],
        [],
    ],
)
def test_another_question_has_an_allowance_of_its_own(question):
    failed()
    assert take(LIMITS, PLACE, question, now()).attempts == 4


def test_another_place_has_an_allowance_of_its_own():
    failed()
    assert take(LIMITS, "agent:77aa", QUESTION, now()).attempts == 4


def test_where_nothing_repeats_a_request_nothing_is_left():
    failed(place=None)
    assert allowance._unfinished == {}
    assert take(LIMITS, None, QUESTION, now()).attempts == 4


def test_what_is_left_is_taken_once():
    # The same question twice at once, as in a batch: each is a request.
    failed()
    assert take(LIMITS, PLACE, QUESTION, now()).attempts == 1
    assert take(LIMITS, PLACE, QUESTION, now()).attempts == 4


def test_a_request_that_succeeds_leaves_nothing():
    failed()
    take(LIMITS, PLACE, QUESTION, now())
    assert allowance._unfinished == {}


def test_dollars_and_deadline_go_on():
    left = take(LIMITS, PLACE, QUESTION, now())
    left.usd = 0.25
    leave(left, PLACE, QUESTION)
    again = take(LIMITS, PLACE, QUESTION, now() + 30)
    assert (again.usd, again.deadline) == (0.25, left.deadline)


def test_a_layer_that_waits_beyond_the_deadline_finds_it_used_up():
    left = failed()
    assert take(LIMITS, PLACE, QUESTION, left.deadline + 29) is left


def test_half_a_minute_after_its_deadline_a_request_is_a_new_one():
    left = failed()
    assert take(LIMITS, PLACE, QUESTION, left.deadline + 31).attempts == 4


def test_failing_again_and_again_does_not_put_the_end_off():
    left = failed()
    end = left.remembered_until
    for _ in range(3):
        leave(take(LIMITS, PLACE, QUESTION, now()), PLACE, QUESTION)
    assert left.remembered_until == end


def test_without_a_deadline_a_request_is_a_new_one_after_ten_minutes():
    limits = Limits(deadline_s=None)
    left = failed(limits=limits)
    assert take(limits, PLACE, QUESTION, now() + 599) is left
    leave(left, PLACE, QUESTION)
    assert take(limits, PLACE, QUESTION, now() + 601).attempts == 4


def test_what_is_over_is_forgotten():
    over = Allowance(LIMITS, now() - 91)
    leave(over, PLACE, QUESTION)
    assert allowance._unfinished == {}


def test_what_is_over_is_forgotten_when_another_fails():
    earlier = Allowance(LIMITS, now())
    leave(earlier, "earlier", QUESTION)
    earlier.remembered_until = now() - 1
    failed()
    assert [place for place, _ in allowance._unfinished] == [PLACE]


def test_the_oldest_is_forgotten_where_too_many_fail(monkeypatch):
    monkeypatch.setattr(allowance, "MOST_UNFINISHED", 3)
    for index in range(5):
        failed(place=index)
    assert [place for place, _ in allowance._unfinished] == [2, 3, 4]


def test_messages_in_parts_are_told_apart():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    text = {"type": "text", "text": "What is it?"}
    first = key_of(PLACE, [HumanMessage([text, image])])
    assert first == key_of(PLACE, [HumanMessage([dict(text), dict(image)])])
    assert first != key_of(PLACE, [HumanMessage([text])])


def test_a_key_holds_no_content():
    (place, digest) = key_of(PLACE, [HumanMessage("my card is 4111")])
    assert place == PLACE
    assert isinstance(digest, int)


def test_many_threads_lose_nothing():
    together = threading.Barrier(8)

    def failing(caller):
        together.wait(30)
        for turn in range(200):
            place = (caller, turn)
            for attempts in (3, 2, 1):
                left = take(LIMITS, place, QUESTION, now())
                assert left.attempts == attempts + 1
                left.attempts = attempts
                leave(left, place, QUESTION)
            take(LIMITS, place, QUESTION, now())
        return caller

    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(failing, range(8))) == list(range(8))
    assert allowance._unfinished == {}
