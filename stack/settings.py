"""The settings of the one-machine stack. `stack.__main__` reads them once from the environment."""

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
# The interpreter under one fixed name: under another name a component's command would seem to have changed.
_BIN = Path(sys.executable).parent.resolve()
PYTHON = str(_BIN / "python" if (_BIN / "python").exists() else _BIN / Path(sys.executable).name)

SETTINGS = (BackendSettings, LearningSettings, FineTuneOptions)
# Settings of the backend and the workers that the stack passes through; it sets all others itself.
PASSED_THROUGH = tuple(dict.fromkeys(name for each in SETTINGS for name in each.variables("make_up")))
# Settings that are paths. They are made absolute, because components run in another working directory.
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
    """The variables that only `make up` reads."""

    label_studio_port: Port | None = setting(
        None, "Label Studio's port; 0: any free one", shown="8080, or a free one", make_up=False
    )
    backend_port: Port | None = setting(None, "the backend's port; 0: any free one", make_up=False)
    redis_port: Port | None = setting(
        None, "Redis's port; 0: any free one", shown="6380, or a free one", make_up=False
    )
    state_dir: Path = setting(
        CHECKOUT / ".osprey", "folder in which `make up` stores all its data", shown="`.osprey`", make_up=False
    )
    label_studio_executable: Path = setting(
        CHECKOUT / ".venv-label-studio" / "bin" / "label-studio", "command that starts Label Studio",
        shown="`.venv-label-studio/bin/label-studio`", make_up=False,
    )  # fmt: skip


class StackError(Exception):
    """A command of the one-machine stack failed. The message has the reason and the next step."""


@dataclass(frozen=True)
class StackSettings:
    """The settings of a stack.

    Attributes:
        state_dir: absolute path of the state folder.
        label_studio_executable: absolute path of Label Studio's command.
        ports: the ports that a variable sets, by keys of `PORT_VARIABLES`; 0: any free port.
        passed_through: the variables that backend and workers get, by name.
    """

    state_dir: Path
    label_studio_executable: Path
    ports: Mapping[str, int]
    passed_through: Mapping[str, str]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> StackSettings:
        """Read the `OSPREY_*` variables.

        Raises:
            StackError: a port is not a whole number from 0 to 65535.
        """
        try:
            variables = StackVariables.from_env(environ)
        except ValueError as error:
            raise StackError(str(error)) from error
        given = {name: text for name, text in given_variables(environ).items() if name in PASSED_THROUGH}
        given |= {name: str(Path(given[name]).expanduser().absolute()) for name in _PATHS if name in given}
        state_dir = variables.state_dir.absolute()
        defaults = {"OSPREY_MODEL": str(OSPREY_NANO), "OSPREY_SAM": str(SAM_NANO)}
        if Path(given.get("OSPREY_MODEL", OSPREY_NANO)) == OSPREY_NANO:
            # These sets fit only the small model; for other weights a person has to set the variables.
            truth = state_dir / TRUTH
            defaults |= {"OSPREY_BASE_SET": str(truth / "base"), "OSPREY_REPLAY": str(truth / "replay" / "data.json")}
        return cls(
            state_dir=state_dir,
            label_studio_executable=variables.label_studio_executable.absolute(),
            ports={name: port for name in PORT_VARIABLES if (port := getattr(variables, f"{name}_port")) is not None},
            passed_through=defaults | given,
        )

    @property
    def truth(self) -> Path | None:
        """The folder in which `demo.truth` makes base set and replay data; None: the variables name other ones."""
        return truth_folder(self.state_dir, self.passed_through)

    def check_label_studio(self) -> None:
        """Check that Label Studio is installed. Only `make up` needs it; `make down` and `make status` do not.

        Raises:
            StackError: Label Studio's command does not exist.
        """
        if not self.label_studio_executable.is_file():
            raise StackError(
                f"expected Label Studio's command at {self.label_studio_executable}, found nothing; run `make env`, "
                "or name it in OSPREY_LABEL_STUDIO_EXECUTABLE"
            )


def truth_folder(state_dir: Path, passed_through: Mapping[str, str]) -> Path | None:
    """Return the folder in which `demo.truth` makes base set and replay data; None: the stack uses other ones.

    Args:
        state_dir: the state folder of the stack.
        passed_through: the variables that backend and workers get, by name.
    """
    folder = state_dir / TRUTH
    named = {passed_through.get(name) for name in ("OSPREY_BASE_SET", "OSPREY_REPLAY")}
    return folder if {str(folder / "base"), str(folder / "replay" / "data.json")} & named else None
