"""What a person may choose about the one-machine stack, read once from the environment by `stack.__main__`.

Neighbours: `state.py` keeps what was chosen between runs, `components.py` turns it into processes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.small_models import OSPREY_NANO, SAM_NANO

CHECKOUT = Path(__file__).resolve().parent.parent
# The interpreter by one name, however this process was called: other names would look like other commands.
_BIN = Path(sys.executable).parent.resolve()
PYTHON = str(_BIN / "python" if (_BIN / "python").exists() else _BIN / Path(sys.executable).name)

# Settings of the backend and the workers that the stack hands through; all others it sets itself.
HANDED_THROUGH = (
    "OSPREY_MODEL",
    "OSPREY_MODEL_VERSION",
    "OSPREY_SAM",
    "OSPREY_REGISTRY",
    "OSPREY_BASE_SET",
    "OSPREY_AUTO_PROMOTE",
    "OSPREY_DEVICE",
    "OSPREY_THREADS",
    "OSPREY_COMPILE",
    "OSPREY_EMBEDDINGS_MAX_BYTES",
    "OSPREY_EMBEDDING_TTL_S",
    "OSPREY_WAIT_BUDGET_S",
    "OSPREY_LOOK_AHEAD",
    "OSPREY_MASK_WAIT_S",
    "OSPREY_SESSION_TTL_S",
    "OSPREY_BACKEND_THREADS",
    "OSPREY_BACKEND_MAX_BODY_BYTES",
    "OSPREY_CACHE_DIR",
    "OSPREY_CACHE_MAX_BYTES",
    "OSPREY_IMAGE_ALLOW_HOSTS",
    "OSPREY_IMAGE_MAX_BYTES",
    "OSPREY_IMAGE_MAX_PIXELS",
    "OSPREY_LOG_LEVEL",
    "OSPREY_DATABASE_URL",
    "OSPREY_EXPORTS",
    "OSPREY_PROJECTS",
    "OSPREY_RECONCILE_S",
    "OSPREY_RECONCILE_FULL_S",
    "OSPREY_BLIND_SHARE",
    "OSPREY_RANDOM_SHARE",
    "OSPREY_REPLAY",
    "OSPREY_FINETUNE_AFTER",
    "OSPREY_FINETUNE_CRON",
    "OSPREY_FINETUNE_LEARNING_RATE",
    "OSPREY_FINETUNE_WHOLE_RATE",
    "OSPREY_FINETUNE_EPOCHS",
    "OSPREY_FINETUNE_MAX_STEPS",
    "OSPREY_FINETUNE_BATCH_SIZE",
    "OSPREY_FINETUNE_DEVICE_BATCH_SIZE",
    "OSPREY_FINETUNE_RANK",
    "OSPREY_FINETUNE_ALPHA",
    "OSPREY_FINETUNE_DROPOUT",
    "OSPREY_FINETUNE_VOCABULARY",
    "OSPREY_FINETUNE_REPLAY",
    "OSPREY_FINETUNE_HELD_OUT",
    "OSPREY_FINETUNE_PATIENCE",
    "OSPREY_FINETUNE_GRADIENT_CHECKPOINTING",
    "OSPREY_FINETUNE_CACHE_BYTES",
    "OSPREY_FINETUNE_SEED",
    "OSPREY_FINETUNE_GATE",
)

# Of these a relative path means the folder of the person who types it; the components work in another one.
_PATHS = (
    "OSPREY_MODEL",
    "OSPREY_SAM",
    "OSPREY_REGISTRY",
    "OSPREY_BASE_SET",
    "OSPREY_CACHE_DIR",
    "OSPREY_EXPORTS",
    "OSPREY_REPLAY",
)

TRUTH = "truth"  # below the state folder: base set and replay data

PORT_VARIABLES = {
    "label_studio": "OSPREY_LABEL_STUDIO_PORT",
    "backend": "OSPREY_BACKEND_PORT",
    "redis": "OSPREY_REDIS_PORT",
}


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
        executable = Path(
            environ.get("OSPREY_LABEL_STUDIO_EXECUTABLE") or CHECKOUT / ".venv-label-studio" / "bin" / "label-studio"
        )
        state_dir = Path(environ.get("OSPREY_STATE_DIR") or CHECKOUT / ".osprey").absolute()
        told = {name: environ[name] for name in HANDED_THROUGH if environ.get(name)}
        told |= {name: str(Path(told[name]).expanduser().absolute()) for name in _PATHS if name in told}
        defaults = {
            "OSPREY_MODEL": str(OSPREY_NANO),
            "OSPREY_SAM": str(SAM_NANO),
        }
        if Path(told.get("OSPREY_MODEL", OSPREY_NANO)) == OSPREY_NANO:
            # What the small model knows. Other weights know other things: their base set has to be named.
            truth = state_dir / TRUTH
            defaults |= {"OSPREY_BASE_SET": str(truth / "base"), "OSPREY_REPLAY": str(truth / "replay" / "data.json")}
        return cls(
            state_dir=state_dir,
            label_studio_executable=executable.absolute(),
            ports={
                name: _port(variable, environ[variable])
                for name, variable in PORT_VARIABLES.items()
                if environ.get(variable)
            },
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


def _port(variable: str, text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise StackError(f"{variable}={text!r}: expected a port from 1 to 65535, or 0 for any free one")
    return int(text)
