"""What a person may choose about the one-machine stack, read once from the environment by `stack.__main__`.

Neighbours: `state.py` keeps what was chosen between runs, `components.py` turns it into processes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from backend.settings import Settings as BackendSettings
from demo.small_models import OSPREY_NANO, SAM_NANO
from job_queue.settings import OspreySettings, expect, given_variables, setting
from learning.settings import Settings as LearningSettings
from learning.training.options import FineTuneOptions

CHECKOUT = Path(__file__).resolve().parent.parent
# The interpreter by one name, however this process was called: other names would look like other commands.
_BIN = Path(sys.executable).parent.resolve()
PYTHON = str(_BIN / "python" if (_BIN / "python").exists() else _BIN / Path(sys.executable).name)

SETTINGS = (BackendSettings, LearningSettings, FineTuneOptions)
# Settings of the backend and the workers that the stack hands through; all others it sets itself.
HANDED_THROUGH = tuple(dict.fromkeys(name for each in SETTINGS for name in each.variables("make_up")))
# Of these a relative path means the folder of the person who types it; the components work in another one.
_PATHS = (
    "OSPREY_SAM",
    *(name for each in SETTINGS for name, field in each.variables().items() if "Path" in str(field.annotation)),
)

TRUTH = "truth"  # below the state folder: base set and replay data

PORT_VARIABLES = {
    "label_studio": "OSPREY_LABEL_STUDIO_PORT",
    "backend": "OSPREY_BACKEND_PORT",
    "redis": "OSPREY_REDIS_PORT",
}


Port = Annotated[int, Field(strict=True, ge=0, le=65535), expect("a port from 1 to 65535, or 0 for any free one", int)]


class StackVariables(OspreySettings):
    """The variables of `make up` itself."""

    label_studio_port: Port | None = setting(
        None, "Label Studio's port; 0: any free one", shown="8080, or a free one", make_up=False
    )
    backend_port: Port | None = setting(None, "the backend's port; 0: any free one", make_up=False)
    redis_port: Port | None = setting(
        None, "port of Redis; 0: any free one", shown="6380, or a free one", make_up=False
    )
    state_dir: Path = setting(
        CHECKOUT / ".osprey", "where `make up` keeps everything", shown="`.osprey`", make_up=False
    )
    label_studio_executable: Path = setting(
        CHECKOUT / ".venv-label-studio" / "bin" / "label-studio", "another Label Studio",
        shown="`.venv-label-studio/bin/label-studio`", make_up=False,
    )  # fmt: skip
class StackError(Exception):
    """The one-machine stack cannot do what was asked. The message says why, and what to do."""


@dataclass(frozen=True)
class StackSettings:
    """Where the stack lives and what it runs.

    `ports` holds only ports that were asked for; 0 asks for any free one.
    """

    state_dir: Path
    label_studio_executable: Path
    ports: Mapping[str, int]
    handed_through: Mapping[str, str]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> StackSettings:
        """Read the `OSPREY_*` variables.

        Raises:
            StackError: a port that is not a number between 0 and 65535.
        """
        try:
            variables = StackVariables.from_env(environ)
        except ValueError as error:
            raise StackError(str(error)) from error
        told = {name: text for name, text in given_variables(environ).items() if name in HANDED_THROUGH}
        told |= {name: str(Path(told[name]).expanduser().absolute()) for name in _PATHS if name in told}
        state_dir = variables.state_dir.absolute()
        defaults = {"OSPREY_MODEL": str(OSPREY_NANO), "OSPREY_SAM": str(SAM_NANO)}
        if Path(told.get("OSPREY_MODEL", OSPREY_NANO)) == OSPREY_NANO:
            # What the small model knows. Other weights know other things: their base set has to be named.
            truth = state_dir / TRUTH
            defaults |= {"OSPREY_BASE_SET": str(truth / "base"), "OSPREY_REPLAY": str(truth / "replay" / "data.json")}
        return cls(
            state_dir=state_dir,
            label_studio_executable=variables.label_studio_executable.absolute(),
            ports={name: port for name in PORT_VARIABLES if (port := getattr(variables, f"{name}_port")) is not None},
            handed_through=defaults | told,
        )

    @property
    def truth(self) -> Path | None:
        """The folder whose sets `demo.truth` makes; None where others were named."""
        return truth_folder(self.state_dir, self.handed_through)

    def check_label_studio(self) -> None:
        """Only starting needs Label Studio; stopping and looking must work without it.

        Raises:
            StackError: there is no Label Studio to start.
        """
        if not self.label_studio_executable.is_file():
            raise StackError(
                f"expected Label Studio's command at {self.label_studio_executable}, found nothing; run `make env`, "
                "or name it in OSPREY_LABEL_STUDIO_EXECUTABLE"
            )


def truth_folder(state_dir: Path, handed_through: Mapping[str, str]) -> Path | None:
    """Where `demo.truth` makes base set and replay data for a stack with these settings; None: it has others."""
    folder = state_dir / TRUTH
    named = {handed_through.get(name) for name in ("OSPREY_BASE_SET", "OSPREY_REPLAY")}
    return folder if {str(folder / "base"), str(folder / "replay" / "data.json")} & named else None
