"""Converts a store in a process of its own, to be killed in the middle."""

import sys
from collections.abc import Sequence

from langchain_slm.conversion import Conversion, Options, convert
from langchain_slm.curation import SplitShares
from langchain_slm.evaluation.experiment import Settings
from langchain_slm.recording.store import open_store
from langchain_slm.schema import ModelSpec

IN_FLIGHT = 4


def catalogue(url: str, provider: str = "openai", **changed: object) -> list[ModelSpec]:
    """Return the reference, and a candidate at `url` for a tenth of its price."""
    dear = {
        "usd_per_million_input_tokens": 1.0,
        "usd_per_million_output_tokens": 1.0,
    }
    cheap = {"base_url": url, **{name: usd / 10 for name, usd in dear.items()}}
    return [
        ModelSpec.model_validate({"provider": "openai", **spec})
        for spec in (
            {"name": "ref", "model": "ref", "api_key_env": "NOT_NEEDED", **dear},
            {"name": "slm", "model": "slm", "provider": provider, **cheap, **changed},
        )
    ]


def converted(
    store: str, models: Sequence[ModelSpec], plan: str, **options: object
) -> Conversion:
    """Convert without heads, training or validation, and without waits."""
    given = {
        "heads": False,
        "split": SplitShares(train=0, validation=0, test=1),
        "settings": Settings(concurrency=IN_FLIGHT, first_wait_s=0, rate_limit_wait_s=0),
        **options,
    }
    with open_store(store) as opened:
        return convert(opened, models, plan_path=plan, options=Options(**given))


if __name__ == "__main__":
    STORE, URL, PLAN = sys.argv[1:]
    converted(STORE, catalogue(URL), PLAN)
