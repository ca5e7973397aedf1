"""Read JSON that another release may have written: jobs, heartbeats and other small dataclasses in Redis.

Unknown keys are ignored and missing ones take their default, so that releases can live side by side. A new field of a
record therefore needs a default that means what the releases before it did.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


@functools.cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def build_record(kind: type[T], data: object) -> T:
    """Build a dataclass from JSON values: nested dataclasses from dicts, tuples from lists, scalars of their type.

    Raises:
        ValueError: a field without a default is missing, or a value has another type; the message names each.
    """
    try:
        adapter: TypeAdapter[T] = _adapter(cast(Any, kind))
        built = adapter.validate_python(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}" for each in error.errors())
        raise ValueError(
            f"{kind.__name__} cannot be read ({problems}); sender and receiver may be of different releases: "
            "restart backend and workers from the same release"
        ) from error
    return built


def write_record(record: Any) -> str:
    """Return a dataclass as JSON text."""
    return json.dumps(dataclasses.asdict(record))


def read_record(kind: type[T], text: bytes | str, **more: Any) -> T | None:
    """Read what `write_record` gave, in this release or another one.

    Args:
        kind: a dataclass.
        text: its JSON.
        more: values of fields that are not in the text.

    Returns:
        The record, or None where the text is not a record of this kind.
    """
    try:
        return build_record(kind, {**json.loads(text), **more})
    except (ValueError, TypeError):
        return None


def known_fields(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `data` that are fields of a dataclass, as keyword arguments for it.

    Keys that the dataclass does not have are left out. A field that is missing in `data` is missing in the result, so
    the dataclass uses its default or raises `TypeError` if it has none.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in data.items() if name in names}
