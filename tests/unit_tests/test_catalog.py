"""The catalogue: what it reads, what it refuses, and that no message holds a secret."""

import doctest
from datetime import date
from decimal import Decimal

import pytest
from genai_prices.types import (
    ConditionalPrice,
    ModelPrice,
    StartDateConstraint,
    Tier,
    TieredPrices,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_slm import catalog
from langchain_slm.catalog import (
    _token_prices,
    find,
    parse_catalog,
    price_from_genai_prices,
)
from langchain_slm.errors import CatalogError

PRICED = "usd_per_million_input_tokens = 0.1\nusd_per_million_output_tokens = 0.4\n"


def parse(text):
    return parse_catalog(text, source="models.toml")


def refusal(text):
    with pytest.raises(CatalogError) as raised:
        parse(text)
    return raised.value


def one(lines):
    return parse(f'[models.m]\nprovider = "openai"\n{lines}')[0]


def test_every_docstring_example_runs():
    result = doctest.testmod(catalog)
    assert result.failed == 0
    assert result.attempted >= 6


def test_a_model_is_read_with_all_its_keys():
    text = """
        [models.slm-8b]
        provider = "nvidia"
        model = "meta/llama-3.1-8b-instruct"
        base_url = "http://localhost:8000/v1"
        api_key_env = "NVIDIA_API_KEY"
        usd_per_million_input_tokens = 0.1
        usd_per_million_output_tokens = 1
    """
    (spec,) = parse(text)
    assert spec.model_dump() == {
        "name": "slm-8b",
        "provider": "nvidia",
        "model": "meta/llama-3.1-8b-instruct",
        "base_url": "http://localhost:8000/v1",
        "api_key_env": "NVIDIA_API_KEY",
        "usd_per_million_input_tokens": 0.1,
        "usd_per_million_output_tokens": 1.0,
    }


def test_models_keep_the_order_of_the_file_and_default_to_their_name():
    text = f'[models."gpt-4.1"]\nprovider = "openai"\n{PRICED}'
    text += f'[models.a]\nprovider = "groq"\n{PRICED}'
    specs = parse(text)
    assert [(spec.name, spec.model) for spec in specs] == [
        ("gpt-4.1", "gpt-4.1"),
        ("a", "a"),
    ]


def test_a_byte_order_mark_and_windows_line_ends_are_read():
    assert parse('\ufeff[models.m]\r\nprovider = "x"\r\n')[0].provider == "x"


# Prices -----------------------------------------------------------------------------


def prices(spec):
    return spec.usd_per_million_input_tokens, spec.usd_per_million_output_tokens


def test_absent_prices_are_the_list_prices():
    assert prices(one('model = "gpt-4o-mini"')) == (0.15, 0.6)


def test_a_price_in_the_file_goes_before_the_list_price():
    lines = 'model = "gpt-4o-mini"\nusd_per_million_output_tokens = 0.3'
    assert prices(one(lines)) == (0.15, 0.3)


def test_prices_of_a_model_that_nobody_lists_are_unknown():
    assert prices(one('model = "no-such-model"')) == (None, None)


def test_a_self_hosted_model_does_not_take_the_price_of_its_namesake():
    lines = 'model = "gpt-4o-mini"\nbase_url = "http://localhost:8000/v1"'
    assert prices(one(lines)) == (None, None)


@pytest.mark.parametrize("price", ["nan", "inf", "-0.1", f"1{'0' * 400}"])
def test_an_implausible_price_is_unknown_and_not_replaced(price):
    lines = f'model = "gpt-4o-mini"\nusd_per_million_input_tokens = {price}'
    assert prices(one(lines)) == (None, 0.6)


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "gpt-4o-2024-08-06", (2.5, 10.0)),
        ("nvidia", "meta/llama-3.1-8b-instruct", None),
        ("openai", "", None),
    ],
)
def test_list_prices_are_those_that_the_package_ships(provider, model, expected):
    assert price_from_genai_prices(provider, model) == expected


def listed(price_in, price_out, **others):
    return ModelPrice(input_mtok=price_in, output_mtok=price_out, **others)


def test_of_prices_that_changed_the_newest_counts():
    newest = StartDateConstraint(start_date=date(2025, 6, 10))
    history = [
        ConditionalPrice(prices=listed(Decimal(10), Decimal(40))),
        ConditionalPrice(newest, prices=listed(Decimal(2), Decimal(8))),
    ]
    assert _token_prices(history) == (2.0, 8.0)


def test_a_tiered_price_is_that_of_short_inputs():
    tiered = TieredPrices(base=Decimal("1.25"), tiers=[Tier(200_000, Decimal("2.5"))])
    assert _token_prices(listed(tiered, Decimal(10))) == (1.25, 10.0)


def test_a_model_that_costs_more_than_its_tokens_has_no_token_price():
    per_request = listed(Decimal(1), Decimal(1), requests_kcount=Decimal(12))
    assert _token_prices(per_request) is None
    assert _token_prices(listed(Decimal(1), None)) is None
    assert _token_prices(listed(None, Decimal(1))) is None
    assert _token_prices([]) is None


def test_the_price_behind_a_url_is_that_of_the_host():
    url = "https://api.openai.com/v1"
    assert price_from_genai_prices("x", "gpt-4o-mini", base_url=url) == (0.15, 0.6)


# Refusals ---------------------------------------------------------------------------


def test_text_that_is_not_toml_is_refused_with_its_line():
    error = refusal('[models.m]\nprovider = "a\n')
    assert str(error).startswith("models.toml: not TOML: ")
    assert "line 2" in str(error)
    assert error.fields["source"] == "models.toml"


@pytest.mark.parametrize(
    "text", [f"a = {'[' * 5000}", f"a = {'9' * 5000}", "\x00", "[models.m]\n[models.m]"]
)
def test_hostile_text_is_refused_not_crashed_on(text):
    assert str(refusal(text)).startswith("models.toml: not TOML: ")


@pytest.mark.parametrize("text", ["", "# nothing", "[models]", "models = []"])
def test_a_catalogue_without_models_is_refused(text):
    assert str(refusal(text)) == (
        "models.toml: no models. Add a table [models.NAME] with at least a provider."
    )


def test_a_model_without_a_name_is_refused():
    assert "a model without a name" in str(refusal('[models.""]\nprovider = "x"'))


def test_a_model_that_is_no_table_is_refused():
    error = refusal('[models]\nm = "gpt-4o"')
    assert str(error) == (
        "models.toml: model \"m\": 'gpt-4o' is not a table. Write it as [models.m]."
    )


def test_a_model_without_provider_is_refused():
    error = refusal('[models.m]\nmodel = "a"')
    assert str(error) == (
        'models.toml: model "m": no provider. Add one, such as provider = "openai".'
    )
    assert error.fields == {"source": "models.toml", "model": "m", "key": "provider"}


def test_an_unknown_key_is_refused_with_the_nearest_and_the_allowed():
    error = refusal('[models.m]\nprovidor = "openai"')
    assert str(error) == (
        'models.toml: model "m": unknown key "providor" (did you mean "provider"?). '
        "Allowed: provider, model, base_url, api_key_env, "
        "usd_per_million_input_tokens, usd_per_million_output_tokens."
    )


def test_an_unknown_table_is_refused():
    error = refusal('[model.m]\nprovider = "openai"')
    assert str(error) == (
        'models.toml: unknown key "model" (did you mean "models"?). Allowed: models.'
    )


def test_a_dot_in_a_name_without_quotes_is_explained():
    error = refusal('[models.gpt-4.1]\nprovider = "openai"')
    assert str(error) == (
        'models.toml: model "gpt-4": "1" is a table. '
        'A dot in a name needs quotes: [models."gpt-4.1"].'
    )


def test_a_price_with_a_typo_is_no_secret():
    error = refusal('[models.m]\nprovider = "x"\nusd_per_million_input_token = 1')
    assert 'did you mean "usd_per_million_input_tokens"?' in str(error)


CANARY = "sk-canary-7f3a"


@pytest.mark.parametrize(
    "line",
    [
        *(
            f'{key} = "{CANARY}"'
            for key in (
                "api_key",
                "apikey",
                "openai-api-key",
                "API_KEY",
                "key",
                "token",
                "hf_token",
                "secret",
                "client_secret",
                "password",
                "authorization",
            )
        ),
        f'api_key_env = "{CANARY}"',
        'api_key_env = "hf_sk-canary-7f3a"',
        f'headers = {{ x = "{CANARY}" }}',
        f'base_url = "https://user:{CANARY}@host/v1"',
        f'base_url = "https://host/v1?key={CANARY}"',
        f'base_url = "https://host/v1#{CANARY}"',
    ],
)
def test_whatever_may_be_a_secret_is_refused_and_never_repeated(line):
    error = refusal(f'[models.m]\nprovider = "openai"\n{line}')
    assert "canary" not in str(error)
    assert "canary" not in repr(error.fields)
    assert error.__context__ is None


def test_a_key_in_the_file_is_refused_with_the_way_out():
    error = refusal(f'[models.m]\nprovider = "openai"\napi_key = "{CANARY}"')
    assert str(error) == (
        'models.toml: model "m": "api_key" would put a secret into the file. Remove it, '
        'set an environment variable, and give its name: api_key_env = "MY_API_KEY".'
    )


@pytest.mark.parametrize(
    "value",
    [
        '"localhost:8000/v1"',
        '"ftp://host/v1"',
        '"file:///etc/passwd"',
        '"http://"',
        '"http://[::1"',
        '"http://host:port/v1"',
        '""',
        "8000",
    ],
)
def test_a_base_url_that_is_not_http_is_refused_with_its_value(value):
    error = refusal(f'[models.m]\nprovider = "openai"\nbase_url = {value}')
    assert value.strip('"') in str(error)
    assert error.fields["key"] == "base_url"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("provider = 3", "provider is 3"),
        ('provider = " "', "provider is ' '"),
        ('provider = "x"\nmodel = ["a"]', "model is ['a']"),
        (
            'provider = "x"\nusd_per_million_input_tokens = "0.1"',
            "usd_per_million_input_tokens is '0.1'",
        ),
        (
            'provider = "x"\nusd_per_million_output_tokens = true',
            "usd_per_million_output_tokens is True",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_and_shown(line, shown):
    assert shown in str(refusal(f"[models.m]\n{line}"))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        assert parse(f'[models.m]\nprovider = "x"\n{PRICED}{text}')
    except CatalogError as error:
        assert error.fields["source"] == "models.toml"  # noqa: PT017 - either outcome


# find -------------------------------------------------------------------------------


def test_a_model_is_found_by_its_name():
    text = f'[models.a]\nprovider = "x"\n{PRICED}[models.b]\nprovider = "y"\n{PRICED}'
    assert find(parse(text), "b").provider == "y"


def test_an_unknown_model_is_refused_with_the_nearest_and_the_known():
    models = parse(f'[models.slm-8b]\nprovider = "x"\n{PRICED}')
    with pytest.raises(CatalogError) as raised:
        find(models, "slm-8")
    assert str(raised.value) == (
        'the catalogue has no model "slm-8" (did you mean "slm-8b"?). Known: "slm-8b".'
    )
    assert raised.value.fields == {"model": "slm-8", "known": ("slm-8b",)}


def test_an_empty_catalogue_knows_no_model():
    with pytest.raises(CatalogError, match="Known: none"):
        find((), "a")
