"""The one-shot services of docker compose: `python -m stack.compose_init` and `python -m stack.compose_init base-set`.

The first makes the workers' token and the sample project, and prints the address and the login. The second makes the
small model's base set and replay data; clicks work without them. Both run at every `docker compose up` and make only
what is missing.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.small_models import OSPREY_NANO
from demo.truth.sample_sets import sample_sets_are_made, write_sample_sets
from job_queue.errors import OspreyError
from registry.sets_in_making import plan
from stack.label_studio_token import make_token, token_works
from stack.sample_project import ensure_project
from stack.settings import StackError
from stack.state import write_private
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.connection import BackendAddress

logger = logging.getLogger(__name__)

_TRUTH = Path("/exports/truth")  # in the volume that the services `data` and `train` mount, too


@dataclass(frozen=True)
class InitSettings:
    """Addresses inside the compose network and the files that the services share."""

    label_studio_url: str
    public_url: str
    username: str
    password: str
    token: str
    backend: BackendAddress
    token_file: Path
    truth: Path | None  # the folder for base set and replay data; None: other weights than the small model are served

    @classmethod
    def from_env(cls, environ: Mapping[str, str], secrets_folder: Path) -> InitSettings:
        """Read the variables of docker-compose.yml and the login in `secrets_folder`.

        Raises:
            StackError: a variable is missing.
        """
        login = dict(
            line.split("=", 1) for line in (secrets_folder / "label-studio.env").read_text().splitlines() if "=" in line
        )

        def need(name: str) -> str:
            if not environ.get(name):
                raise StackError(f"{name} is not set; docker-compose.yml sets it for the service init")
            return environ[name]

        url = need("OSPREY_LABEL_STUDIO_URL")
        return cls(
            label_studio_url=url,
            public_url=environ.get("OSPREY_LABEL_STUDIO_PUBLIC_URL") or url,
            username=_unquoted(login["LABEL_STUDIO_USERNAME"]),
            password=_unquoted(login["LABEL_STUDIO_PASSWORD"]),
            token=environ.get("OSPREY_LABEL_STUDIO_TOKEN", ""),
            backend=BackendAddress(
                need("OSPREY_BACKEND_URL"),
                need("OSPREY_BACKEND_USER"),
                need("OSPREY_BACKEND_PASSWORD"),
                need("OSPREY_WEBHOOK_SECRET"),
            ),
            token_file=secrets_folder / "token.env",
            truth=truth_of(environ),
        )


def run_init(settings: InitSettings) -> None:
    """Make the workers' token and the sample project where they are missing, and log the address and the login.

    Raises:
        StackError: Label Studio refuses the login, the token or the project.
    """
    token = settings.token
    if not token_works(settings.label_studio_url, token):
        token = make_token(settings.label_studio_url, settings.username, settings.password)
        write_private(settings.token_file, f"OSPREY_LABEL_STUDIO_TOKEN={shlex.quote(token)}\n")
        # The services run as different users, so each must be able to read it; only these services mount the volume.
        settings.token_file.chmod(0o644)
    api = LabelStudioApi(settings.label_studio_url, token)
    try:
        project_id = ensure_project(api, settings.backend, logger.info)
    finally:
        api.close()
    if settings.truth is not None and not sample_sets_are_made(settings.truth):
        plan(settings.truth)  # so that a fine-tune that starts before the service base-set waits for it
    logger.info("ready: %s/projects/%d/data", settings.public_url, project_id)
    logger.info("log in as %s password %s", settings.username, settings.password)


def truth_of(environ: Mapping[str, str]) -> Path | None:
    """Return the folder of base set and replay data; None: other weights than the small model are served."""
    return _TRUTH if Path(environ.get("OSPREY_MODEL") or OSPREY_NANO) == OSPREY_NANO else None


def make_base_set(truth: Path | None) -> None:
    """Make base set and replay data where they are missing, at the lowest priority.

    Raises:
        OspreyError: they cannot be written.
    """
    if truth is None:
        logger.info("other weights than the small model are served: name their base set in OSPREY_BASE_SET")
        return
    os.nice(19)
    write_sample_sets(truth)
    logger.info("base set and replay data are in %s", truth)


def _unquoted(text: str) -> str:
    return "".join(shlex.split(text))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        if sys.argv[1:] == ["base-set"]:
            make_base_set(truth_of(os.environ))
        else:
            run_init(InitSettings.from_env(os.environ, Path("/secrets")))
    except (StackError, OspreyError) as error:
        sys.exit(str(error))
