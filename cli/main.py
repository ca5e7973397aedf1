"""The `osprey` command: one sub-command per file of this room, each importing its room only when it runs."""

from __future__ import annotations

import typer

from cli import backend, collect, config, describe, export, finetune, models, prelabel, registry, report, train, worker

app = typer.Typer(name="osprey", no_args_is_help=True, add_completion=False, help="Osprey for Label Studio.")


@app.callback()
def root() -> None:
    """Osprey for Label Studio: masks by SAM, words by Osprey, corrections back as training data."""


app.command()(worker.worker)
app.command()(worker.status)
app.add_typer(config.app, name="config")
app.command()(backend.backend)
app.command()(collect.collect)
app.command()(export.export)
app.command()(finetune.finetune)
app.command()(prelabel.prelabel)
app.command()(describe.describe)
app.command()(report.report)
app.add_typer(models.app, name="models")
models.app.command("list")(registry.list_versions)
models.app.command("add")(registry.add)
app.command()(registry.gate)
app.command()(registry.promote)
app.command()(registry.rollback)
app.command()(train.train)

if __name__ == "__main__":
    app()
