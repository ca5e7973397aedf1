"""Read a dataclass from JSON that a newer or older release wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def known_fields(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `data` that are fields of a dataclass, as keyword arguments for it.

    Keys that the dataclass does not have are left out. A field that is missing in `data` is missing in the result, so
    the dataclass uses its default or raises `TypeError` if it has none.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in data.items() if name in names}
