"""The `osprey` command. Each sub-command imports the code that it needs only when it runs.

`--help` shows the commands in five groups: serve, label, learn, models, develop.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli import backend, collect, config, describe, export, finetune, models, prelabel, registry, report, train, worker

SERVE, LABEL, LEARN, MODELS, DEVELOP = "Serve", "Label", "Learn from corrections", "Models", "Develop"

app = typer.Typer(
    name="osprey",
    no_args_is_help=True,
    help="Label Studio assistant: one click gives a mask with its fields filled in, and corrections train the model.",
    epilog="Exit codes: 0 done; 1 failed; 2 wrong option or setting; 3 gate not passed; 130 stopped with Ctrl-C.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"osprey {version('osprey-label-studio')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Label Studio assistant: one click gives a mask with its fields filled in, and corrections train the model."""
    if any(name.startswith("OSPREY_") for name in os.environ):
        from backend.settings import Settings as BackendSettings
        from job_queue.settings import name_warnings
        from learning.settings import Settings as LearningSettings
        from learning.training.options import FineTuneOptions

        for line in name_warnings(os.environ, (BackendSettings, LearningSettings, FineTuneOptions)):
            typer.echo(line, err=True)


app.command(rich_help_panel=SERVE)(backend.backend)
app.command(rich_help_panel=SERVE)(worker.worker)
app.command(rich_help_panel=SERVE)(worker.status)
app.add_typer(config.app, name="config", rich_help_panel=LABEL)
app.command(rich_help_panel=LABEL)(prelabel.prelabel)
app.command(rich_help_panel=LABEL)(describe.describe)
app.command(rich_help_panel=LEARN)(collect.collect)
app.command(rich_help_panel=LEARN)(export.export)
app.command(rich_help_panel=LEARN)(report.report)
app.command(rich_help_panel=LEARN)(finetune.finetune)
app.command(rich_help_panel=LEARN)(registry.gate)
app.command(rich_help_panel=MODELS)(registry.promote)
app.command(rich_help_panel=MODELS)(registry.rollback)
app.add_typer(models.app, name="models", rich_help_panel=MODELS)
models.app.command("list")(registry.list_versions)
models.app.command("add")(registry.add)
app.command(rich_help_panel=DEVELOP)(train.train)

if __name__ == "__main__":
    app(prog_name="osprey")
