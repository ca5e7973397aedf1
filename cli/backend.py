"""`osprey backend`: serve Label Studio's requests."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def backend(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default OSPREY_BACKEND_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default OSPREY_BACKEND_PORT or 9090.")] = None,
) -> None:
    """Serve Label Studio's requests (settings come from the OSPREY_* variables)."""
    from backend.main import main

    given = {"OSPREY_BACKEND_HOST": host, "OSPREY_BACKEND_PORT": port}
    overrides = {name: str(value) for name, value in given.items() if value is not None}
    try:
        main({**os.environ, **overrides})
    except ValueError as error:
        typer.echo(f"osprey backend: {error}", err=True)
        raise typer.Exit(2) from error
