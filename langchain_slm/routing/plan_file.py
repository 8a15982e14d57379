"""The plan as a file: whole or not at all, and never silently edited.

Refuses numbers that JSON has no word for (NaN, infinity), in both directions.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from pydantic import ValidationError

from langchain_slm.errors import PlanEditedError, PlanError
from langchain_slm.schema import PLAN_FORMAT_VERSION, Plan


def write_plan(plan: Plan, path: Path) -> Plan:
    """Write `plan`, sealed with its hash; readers see the old file or the new one.

    Raises:
        PlanError: If the folder cannot be written, or a number of the plan is not
            finite.
    """
    sealed = plan.sealed()
    body = sealed.model_dump(mode="json")
    if (where := _not_finite(body)) is not None:
        msg = f"{path}: not written: {where} is not a finite number; use null for unknown"
        raise PlanError(msg, path=str(path), where=where)
    text = json.dumps(body, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        msg = f"{path}: the plan cannot be written ({error.strerror})"
        raise PlanError(msg, path=str(path)) from error
    return sealed


def _not_finite(value: object, where: str = "") -> str | None:
    """Return the place of the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else where
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    places = (_not_finite(item, f"{where}.{key}".lstrip(".")) for key, item in inner)
    return next((place for place in places if place is not None), None)


def write_atomically(path: Path, text: str) -> None:
    """Replace the file at `path` by one that holds `text`; a kill leaves either."""
    # Beside it, for a rename works within one file system only. Not `tempfile`: its
    # files are for their owner alone, and another user may run the app.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_plan(path: Path | str) -> Plan:
    """Return the plan in a file.

    Raises:
        PlanError: If there is no file, it is not a plan, or of a newer version.
        PlanEditedError: If its content does not match its own hash.
    """
    path = Path(path)
    body = _json(path)
    version = body.get("format_version") if isinstance(body, dict) else None
    if isinstance(version, int) and version > PLAN_FORMAT_VERSION:
        msg = (
            f"{path}: format version {version} is newer than {PLAN_FORMAT_VERSION}, "
            "the newest this langchain-slm reads; upgrade langchain-slm"
        )
        raise PlanError(msg, path=str(path), version=version)
    try:
        plan = Plan.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        msg = f"{path}: not a plan: {where or 'the file'}: {first['msg']}"
        raise PlanError(msg, path=str(path), where=where) from None
    return _unedited(plan, path)


def _json(path: Path) -> object:
    try:
        body: object = json.loads(path.read_bytes(), parse_constant=_refuse)
    except OSError as error:
        msg = (
            f"{path}: no plan can be read there ({error.strerror}); "
            "`langchain-slm convert` writes one"
        )
        raise PlanError(msg, path=str(path)) from error
    except (ValueError, RecursionError) as error:
        msg = f"{path}: not JSON ({error}); write it anew with `langchain-slm convert`"
        raise PlanError(msg, path=str(path)) from error
    return body


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is no number of JSON"
    raise ValueError(msg)


def _unedited(plan: Plan, path: Path) -> Plan:
    computed = plan.computed_hash()
    if plan.content_hash != computed:
        msg = (
            f"{path}: edited after it was written (content hash "
            f"{plan.content_hash[:12] or 'missing'}, computed {computed[:12]}); its "
            "evidence no longer covers it: run `langchain-slm convert` again, or give "
            "`rewrite` a mapping {site: model} to bind without evidence"
        )
        raise PlanEditedError(
            msg, path=str(path), stated=plan.content_hash, computed=computed
        )
    return plan
