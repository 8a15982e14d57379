"""Calls go on while the plan file is replaced, and each is of one whole plan."""

import pytest
from integration_tests.reloading import SITE, Plans, Reloads
from unit_tests.fake_chat import FakeChat

from langchain_slm import ChatRouter, Router


@pytest.mark.parametrize("way", ["of_threads", "of_tasks"])
def test_no_call_mixes_two_plans(way, tmp_path):
    plans = Plans(tmp_path)
    router = Router(plans.path, reload_s=0.001)
    model = ChatRouter(default=FakeChat(model_name="ref"), router=router, site=SITE)
    made = Reloads(plans, router, calls=2_000, reloads=50)
    getattr(made, way)(model)
    assert made.mixed == 0
    assert made.calls >= 2_000
    assert made.reloads == 50
    assert len(made.plans) > 25
