"""`osprey config check FILE`: show which fields of a labeling config are filled, and how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.screen import fail

if TYPE_CHECKING:
    from rich.table import Table

    from label_config.reader import Field, LabelConfig

app = typer.Typer(no_args_is_help=True, help="Check labeling configs.")


@app.callback()
def config() -> None:
    """Check labeling configs."""


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(help="XML file with the labeling config of a project.", exists=True, dir_okay=False)
    ],
) -> None:
    """Print which fields are filled, and with which questions. Exit code 1: the config cannot be served."""
    from rich.console import Console
    from rich.markup import escape

    from label_config.reader import ConfigError, read_label_config

    console = Console()
    try:
        config = read_label_config(file.read_text(encoding="utf-8"))
    except (ConfigError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be served", str(error))
    console.print(_controls(config))
    console.print(_fields(config))
    for note in config.notes:
        console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)


def _controls(config: LabelConfig) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("Control", "Serves as", "Labels", title=f"Image {escape(config.image_name)} = ${config.image_key}")
    for prompt in config.prompts:
        table.add_row(escape(prompt.name), f"prompt, {prompt.kind}", escape(", ".join(prompt.labels)) or "none")
    labels = escape(", ".join(config.output.labels)) or "none"
    table.add_row(escape(config.output.name), f"output, {config.output.kind}", labels)
    table.add_row(escape(config.notice or "none"), "messages to the annotator", "")
    return table


def _fields(config: LabelConfig) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "Field", "Role", "Question", "Choices", "Values", "Threshold", "Shown for", title="Filled", show_lines=True
    )
    for field in config.fields:
        table.add_row(
            f"{escape(field.name)}\n[dim]{field.tag}[/dim]",
            field.role,
            escape("\n".join(question.text for question in field.questions)),
            escape(_choices(field)),
            "one" if not field.multiple else f"up to {field.max_values}" if field.max_values else "any number",
            f"{field.threshold:g}",
            escape(", ".join(field.when_labels)) or "every region",
        )
    return table


def _choices(field: Field) -> str:
    if not field.choices:
        return "free text"
    shown = [
        choice.text if choice.value == choice.text else f"{choice.text} -> {choice.value}" for choice in field.choices
    ]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
