"""`docs/settings.md` from the settings classes: `python -m stack.settings_page > docs/settings.md`."""

from __future__ import annotations

from backend.settings import Settings as BackendSettings
from job_queue.settings import OspreySettings, ProcessSettings
from learning.settings import Settings as LearningSettings
from learning.training.options import FineTuneOptions
from stack.settings import StackVariables
from worker.settings import Settings as WorkerSettings

# Title, introduction and class of each table; a class's inherited variables are in the table of its base class.
TABLES: tuple[tuple[str, str, type[OspreySettings]], ...] = (
    ("Backend and workers", "Give all processes the same values.", ProcessSettings),
    ("Backend", "`osprey backend` reads these.", BackendSettings),
    ("Workers", "`osprey worker` and the commands of `osprey` read these.", WorkerSettings),
    (
        "Corrections, gate and registry",
        "The workers `data` and `train` read these, and so do the commands of `osprey` that work with corrections.",
        LearningSettings,
    ),
    (
        "Fine-tunes",
        "The worker `train` and `osprey finetune` read these. A checkpoint's `finetune.json` replaces the defaults; a "
        "variable\nreplaces both.",
        FineTuneOptions,
    ),
    ("make up", "Only `make up` reads these.", StackVariables),
)

INTRODUCTION = """# Settings

This page lists every environment variable, by the process that reads it. A process reads its variables once, when it
starts. A variable that is empty counts as missing. `osprey` and `make up` report a misspelled name when they start.

A variable marked * has no effect on `make up`, which sets it itself or does not need it. With `make up`, image cache,
registry, exports and correction store are in the folder `OSPREY_STATE_DIR` by default. `.env.example` lists the
variables that docker compose passes on, with their defaults there.

<!-- Written by `make docs-settings` from the settings classes; change those. -->
"""


def settings_page() -> str:
    """Return the page as Markdown."""
    of_the_stack = {variable.name for variable in StackVariables.variables()}
    shown: set[str] = set()
    page = [INTRODUCTION]
    for title, introduction, settings in TABLES:
        page += [f"\n## {title}\n\n{introduction}\n\n| variable | meaning | default |\n|---|---|---|\n"]
        for variable in settings.variables():
            if variable.name not in shown:
                mark = "" if variable.make_up or variable.name in of_the_stack else " *"
                page.append(f"| `{variable.name}`{mark} | {variable.meaning} | {variable.default} |\n")
                shown.add(variable.name)
    return "".join(page)


if __name__ == "__main__":
    print(settings_page(), end="")  # noqa: T201
