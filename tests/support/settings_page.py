"""The tables of `docs/settings.md` from the settings classes: `python -m tests.support.settings_page` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.settings import Settings as BackendSettings
from job_queue.settings import OspreySettings, ProcessSettings
from learning.settings import Settings as LearningSettings
from learning.training.options import FineTuneOptions
from stack.settings import StackVariables
from worker.settings import Settings as WorkerSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"

# Heading and class of each table; what a class inherits is in the table of its base class.
TABLES: dict[str, type[OspreySettings]] = {
    "Backend and workers": ProcessSettings,
    "Backend": BackendSettings,
    "Workers": WorkerSettings,
    "Corrections, gate and registry": LearningSettings,
    "Fine-tunes": FineTuneOptions,
    "make up": StackVariables,
}
_TABLE = r"(?m)(^## {}\n(?:(?!##)[^|\n].*\n|\n)*)(?:\|.*\n)+"


def with_tables(page: str) -> str:
    """Return the page with the table below each heading of `TABLES` written again."""
    before: set[str] = set()
    for heading, settings in TABLES.items():
        rows = "".join(_rows(settings, before))
        table = f"| variable | meaning | default |\n|---|---|---|\n{rows}"
        page, count = re.subn(_TABLE.format(re.escape(heading)), lambda found, new=table: found[1] + new, page)
        assert count == 1, f"docs/settings.md needs one table below the heading {heading!r}"
        before |= settings.variables().keys()
    return page


def _rows(settings: type[OspreySettings], without: set[str]) -> Iterator[str]:
    read_by_make_up = StackVariables.variables()
    for name, field in settings.variables().items():
        if name not in without:
            about: Any = field.json_schema_extra
            mark = "" if about["make_up"] or name in read_by_make_up else " *"
            default = shown(name, field.default) if about["shown"] is None else about["shown"]
            yield f"| `{name}`{mark} | {field.description} | {default} |\n"


def shown(variable: str, value: Any) -> str:
    """Return a default as Markdown."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    if variable.endswith("_BYTES"):
        return f"{value >> 30} GiB" if value % (1 << 30) == 0 else f"{value >> 20} MiB"
    if isinstance(value, int):
        return f"`{value:_}`" if value >= 10**6 else f"`{value}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
