"""The catalogue of models, from the text of models.toml.

Pure: reads no file, environment or network; the caller hands over the text and its name.
Refuses whatever could carry a secret: a key belongs into the environment, and no message
of this module repeats a value that could be one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from langchain_slm.errors import CatalogError
from langchain_slm.schema import ModelSpec

if TYPE_CHECKING:
    from genai_prices.types import ConditionalPrice, ModelPrice, TieredPrices

Table: TypeAlias = Mapping[str, object]

PRICE_KEYS = ("usd_per_million_input_tokens", "usd_per_million_output_tokens")
ALLOWED_KEYS = ("provider", "model", "base_url", "api_key_env", *PRICE_KEYS)

# Refused with their own message; any other unknown key is refused as such.
_SECRET_KEY = re.compile(
    r"(?!usd_).*(api[_-]?key|token|secret|password|credentials?|authorization)|key",
    re.IGNORECASE,
)

# Capitals only, as POSIX writes them: most keys (`hf_aB3`, `sk-...`) then cannot pass.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def parse_catalog(text: str, *, source: str) -> tuple[ModelSpec, ...]:
    r"""Return the models of a models.toml, in its order.

    Each `[models.NAME]` has `provider`, and optionally `model` (default: NAME),
    `base_url`, `api_key_env` and the two prices. A price that is absent is taken from
    genai-prices where that knows the model at its provider or host; a price that is
    NaN or negative is unknown.

    Args:
        text: TOML.
        source: Name of the file, for messages.

    Returns:
        At least one model.

    Raises:
        CatalogError: If the text cannot be used; names the source and the model.

    Example:
        >>> text = '[models.small]\nprovider = "openai"\nmodel = "gpt-4o-mini"'
        >>> parse_catalog(text, source="models.toml")[0].model
        'gpt-4o-mini'
    """
    place = _Place(source)
    document = _toml(text, place)
    _check_keys(document, ("models",), place)
    models = document.get("models")
    if not isinstance(models, dict) or not models:
        msg = "no models. Add a table [models.NAME] with at least a provider."
        raise place.error(msg)
    if not all(name.strip() for name in models):
        msg = 'a model without a name. Write [models.NAME], not [models.""].'
        raise place.error(msg)
    return tuple(_spec(table, _Place(source, name)) for name, table in models.items())


def find(catalog: Sequence[ModelSpec], name: str) -> ModelSpec:
    r"""Return the model of that name.

    Args:
        catalog: Models, as `parse_catalog` returns them.
        name: Its name in the catalogue.

    Raises:
        CatalogError: If there is none; names the known ones and the nearest.

    Example:
        >>> catalog = parse_catalog('[models.a]\nprovider = "openai"', source="m.toml")
        >>> find(catalog, "a").provider
        'openai'
    """
    for spec in catalog:
        if spec.name == name:
            return spec
    known = tuple(spec.name for spec in catalog)
    listed = ", ".join(f'"{each}"' for each in known) or "none"
    msg = f'the catalogue has no model "{name}"{_nearest(name, known)}. Known: {listed}.'
    raise CatalogError(msg, model=name, known=known)


def price_from_genai_prices(
    provider: str, model: str, *, base_url: str | None = None
) -> tuple[float, float] | None:
    """Return the list prices that the package genai-prices ships for a model.

    The newest listed price, at its dearest hour and without long-context surcharges,
    from the data inside the package: no network, and no clock, so that the same
    versions give the same prices. A model behind a `base_url` has the price of that
    host, not of the provider whose protocol it speaks.

    Args:
        provider: LangChain's name of the provider.
        model: The provider's name of the model.
        base_url: Endpoint; None for the provider's own.

    Returns:
        Dollars per million `(input, output)` tokens; None where the package does not
        know the model, or where tokens are not all that a call costs.

    Example:
        >>> price_from_genai_prices("openai", "gpt-4o-mini")
        (0.15, 0.6)
        >>> price_from_genai_prices("openai", "no-such-model") is None
        True
    """
    # 0.4 s of price tables, needed only for models without a price of their own.
    from genai_prices.data import providers  # noqa: PLC0415 - see above
    from genai_prices.data_snapshot import DataSnapshot  # noqa: PLC0415 - see above

    # Not `get_snapshot`: an app may have replaced that by a downloaded one.
    snapshot = DataSnapshot(providers=providers, from_auto_update=False)
    by = (None, base_url) if base_url else (provider, None)
    try:
        _, found = snapshot.find_provider_model(model, None, *by)
    except LookupError:
        return None
    return _token_prices(found.prices)


def _token_prices(
    listed: ModelPrice | list[ConditionalPrice],
) -> tuple[float, float] | None:
    if not listed:
        return None
    # Ordered by date, then by hour with off-peak discounts first: the last counts.
    price = listed[-1].prices if isinstance(listed, list) else listed
    price_in, price_out = _base(price.input_mtok), _base(price.output_mtok)
    if price_in is None or price_out is None or price.requests_kcount is not None:
        return None
    return price_in, price_out


@dataclass(frozen=True)
class _Place:
    """Where in a catalogue something is wrong."""

    source: str
    model: str = ""

    def error(self, message: str, *, key: str = "") -> CatalogError:
        where = f'{self.source}: model "{self.model}"' if self.model else self.source
        fields = {"source": self.source, "model": self.model, "key": key}
        return CatalogError(f"{where}: {message}", **fields)


def _toml(text: str, place: _Place) -> dict[str, object]:
    try:
        # Some editors begin a file with a byte order mark.
        return tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        # ValueError: tomllib lets that of an integer of 5,000 digits through.
        msg = f"not TOML: {error}. Correct the file at that place."
        raise place.error(msg) from error


def _spec(table: object, place: _Place) -> ModelSpec:
    if not isinstance(table, dict):
        msg = f"{_shown(table)} is not a table. Write it as [models.{place.model}]."
        raise place.error(msg)
    _check_keys(table, ALLOWED_KEYS, place)
    provider = _text(table, "provider", place)
    if provider is None:
        msg = 'no provider. Add one, such as provider = "openai".'
        raise place.error(msg, key="provider")
    model = _text(table, "model", place) or place.model
    base_url = _base_url(table, place)
    prices = _own_prices(table, place)
    if len(prices) < len(PRICE_KEYS):
        prices = _listed_prices(provider, model, base_url) | prices
    return ModelSpec(
        name=place.model,
        provider=provider,
        model=model,
        base_url=base_url,
        api_key_env=_variable(table, place),
        usd_per_million_input_tokens=prices.get(PRICE_KEYS[0]),
        usd_per_million_output_tokens=prices.get(PRICE_KEYS[1]),
    )


def _check_keys(table: Table, allowed: Collection[str], place: _Place) -> None:
    for key, value in table.items():
        if key not in allowed:
            raise place.error(_unknown(key, value, allowed, place), key=key)


def _unknown(key: str, value: object, allowed: Collection[str], place: _Place) -> str:
    if _SECRET_KEY.fullmatch(key):
        return (
            f'"{key}" would put a secret into the file. Remove it, set an environment '
            'variable, and give its name: api_key_env = "MY_API_KEY".'
        )
    if place.model and isinstance(value, dict):
        # TOML reads [models.gpt-4.1] as the table "1" within "gpt-4".
        dotted = f"{place.model}.{key}"
        return f'"{key}" is a table. A dot in a name needs quotes: [models."{dotted}"].'
    return f'unknown key "{key}"{_nearest(key, allowed)}. Allowed: {", ".join(allowed)}.'


def _nearest(word: str, known: Collection[str]) -> str:
    matches = get_close_matches(word, known, n=1)
    return f' (did you mean "{matches[0]}"?)' if matches else ""


def _shown(value: object) -> str:
    return repr(value)[:40]


def _text(table: Table, key: str, place: _Place) -> str | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        msg = f"{key} is {_shown(value)}. Give a text that is not empty."
        raise place.error(msg, key=key)
    return value


def _variable(table: Table, place: _Place) -> str | None:
    value = table.get("api_key_env")
    if value is None:
        return None
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        msg = (
            "api_key_env is not the name of an environment variable (capitals, digits "
            'and _; its value is not shown). Give the name: api_key_env = "MY_API_KEY".'
        )
        raise place.error(msg, key="api_key_env")
    return value


def _base_url(table: Table, place: _Place) -> str | None:
    value = table.get("base_url")
    if value is None:
        return None
    if isinstance(value, str) and any(sign in value for sign in "@?#"):
        # Not shown: a user name, password or key may be in it.
        msg = (
            "base_url carries a user name or a query. Give only scheme, host and path, "
            "and the key by the name of its variable, as api_key_env."
        )
        raise place.error(msg, key="base_url")
    if not isinstance(value, str) or not _is_http(value):
        msg = (
            f"base_url is {_shown(value)}. Give one such as "
            '"https://host/v1" or "http://localhost:8000/v1".'
        )
        raise place.error(msg, key="base_url")
    return value


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _own_prices(table: Table, place: _Place) -> dict[str, float | None]:
    return {key: _price(table[key], key, place) for key in PRICE_KEYS if key in table}


def _listed_prices(
    provider: str, model: str, base_url: str | None
) -> dict[str, float | None]:
    listed = price_from_genai_prices(provider, model, base_url=base_url)
    return dict(zip(PRICE_KEYS, listed, strict=True)) if listed else {}


def _price(value: object, key: str, place: _Place) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{key} is {_shown(value)}. Give a number of dollars, such as 0.15."
        raise place.error(msg, key=key)
    try:
        return float(value)
    except OverflowError:  # an integer past every float: as unknown as infinity
        return None


def _base(price: Decimal | TieredPrices | None) -> float | None:
    """A price as a number; of a tiered one the price of short inputs."""
    if price is None:
        return None
    return float(price if isinstance(price, Decimal) else price.base)
