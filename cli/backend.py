"""`osprey backend`: answer the requests of Label Studio."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli.screen import WRONG_USE, fail


def backend(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: OSPREY_BACKEND_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. Default: OSPREY_BACKEND_PORT.")] = None,
) -> None:
    """Answer the requests of Label Studio. The OSPREY_* variables are its settings (docs/settings.md)."""
    from backend.main import main

    given = {"OSPREY_BACKEND_HOST": host, "OSPREY_BACKEND_PORT": port}
    overrides = {name: str(value) for name, value in given.items() if value is not None}
    try:
        main({**os.environ, **overrides})
    except ValueError as error:
        fail("osprey backend", str(error), WRONG_USE)
