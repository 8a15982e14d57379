"""JSON values: read, checked, compared. Pure: no I/O.

Refuses NaN and infinities, which are no JSON, and never follows a remote `$ref`.
"""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from functools import lru_cache

from jsonschema import Draft202012Validator
from referencing import Registry

from langchain_slm.schema import JsonObject, canonical_json

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_OVER = re.compile(r"\s*/\s*(-?\d+(?:\.\d+)?)")
# Python's own default bound on converting an integer; a fraction takes quadratic time.
_MAX_DIGITS = 4300


class MalformedError(ValueError):
    """An answer is not of the form that it must have; the message says how."""


def _no_constant(name: str) -> float:
    msg = f"{name} is no JSON"
    raise MalformedError(msg)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        msg = "a number is out of range"
        raise MalformedError(msg)
    return number


# Not strict, as in LangChain's parsers: a line break inside a string is no error.
_DECODER = json.JSONDecoder(
    strict=False, parse_constant=_no_constant, parse_float=_finite
)


def read_json(text: str) -> object:
    """Return the value of a JSON text.

    Raises:
        MalformedError: If it is no JSON, holds NaN or a number out of range, or is
            nested more deeply than the interpreter can follow.
    """
    try:
        value: object = _DECODER.decode(text)
    except MalformedError:
        raise
    except json.JSONDecodeError as error:
        msg = f"no JSON at character {error.pos}"
        raise MalformedError(msg) from None
    except ValueError:  # an integer of more digits than Python converts
        msg = "a number is out of range"
        raise MalformedError(msg) from None
    except RecursionError:
        msg = "nested too deeply"
        raise MalformedError(msg) from None
    return value


def read_object(text: str) -> JsonObject:
    """Return the JSON object that the text is.

    Raises:
        MalformedError: As `read_json`, or if the value is no object.
    """
    value = read_json(text)
    if not isinstance(value, dict):
        msg = "JSON, but no object"
        raise MalformedError(msg)
    return value


def first_number(text: str) -> Fraction | None:
    """Return the first number of a text, exactly; `a/b` is one number.

    `$` and `,` are dropped first. None where there is no number, or one of more than
    4,300 digits.
    """
    text = text.replace("$", "").replace(",", "")
    match = _NUMBER.search(text)
    if match is None:
        return None
    over = _OVER.match(text, match.end())
    divided, divisor = match[0], over[1] if over else "1"
    if len(divided) > _MAX_DIGITS or len(divisor) > _MAX_DIGITS:
        return None
    return Fraction(divided) / (Fraction(divisor) or 1)  # a/0 is no number: a


def is_number(text: str) -> bool:
    """Tell whether a text is one number and nothing else, as `first_number` reads it."""
    text = text.replace("$", "").replace(",", "").strip()
    match = _NUMBER.match(text)
    if match is None or first_number(text) is None:
        return False
    over = _OVER.match(text, match.end())
    return (over or match).end() == len(text)


def first_violation(schema: object, value: object) -> str | None:
    """Return where and by which keyword `value` breaks a JSON schema.

    None if it is valid.

    Raises:
        jsonschema.exceptions.SchemaError: If the schema is none.
        referencing.exceptions.Unresolvable: If it refers to what it does not hold.
    """
    try:
        error = next(_validator(canonical_json(schema)).iter_errors(value), None)
    except OverflowError:  # multipleOf divides integers as floats
        return "a number is out of range"
    return None if error is None else f'{error.json_path} breaks "{error.validator}"'


@lru_cache(maxsize=256)  # more distinct schemas than one app's nodes ask for
def _validator(schema_json: str) -> Draft202012Validator:
    schema = json.loads(schema_json)
    Draft202012Validator.check_schema(schema)
    # An own registry: the default one downloads remote references.
    return Draft202012Validator(schema, registry=Registry())


def different_fields(wanted: JsonObject, found: JsonObject) -> list[str]:
    """Return the fields whose values differ, the wanted ones first.

    A field that `found` lacks equals a wanted null; one that `wanted` lacks differs.
    """
    different = [
        name for name, value in wanted.items() if not _same(value, found.get(name))
    ]
    return different + [name for name in found if name not in wanted]


def _same(wanted: object, found: object) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and not different_fields(wanted, found)
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(wanted) == len(found)
            and all(map(_same, wanted, found))
        )
    if isinstance(wanted, str):
        return (
            isinstance(found, str)
            and wanted.strip().casefold() == found.strip().casefold()
        )
    return same_scalar(wanted, found)


def same_scalar(wanted: object, found: object) -> bool:
    """Tell whether two JSON scalars are equal: 1 equals 1.0, True does not equal 1."""
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    return wanted == found
