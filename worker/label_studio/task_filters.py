"""Conditions on tasks, in the form in which the list of tasks takes them."""

from __future__ import annotations

from typing import Any, Literal

Operator = Literal["greater", "equal", "contains"]
Kind = Literal["Number", "Datetime", "String"]


def condition(column: str, operator: Operator, kind: Kind, value: Any) -> dict[str, Any]:
    """Return a condition on a column of the list; `kind` is the type of its values."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def all_of(*conditions: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a query that selects the tasks for which every condition holds."""
    return {"filters": {"conjunction": "and", "items": list(conditions)}}
