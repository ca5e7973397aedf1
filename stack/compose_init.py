"""The one-shot init of docker-compose: `python -m stack.compose_init`.

Makes the workers' token, the sample project and the small model's base set, prints the address and the
login. Runs at every `docker compose up` and leaves alone what is there.
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
from demo.truth.sample_sets import write_sample_sets
from job_queue.errors import OspreyError
from stack.errors import StackError
from stack.label_studio_token import make_token, token_works
from stack.sample_project import ensure_project
from stack.state import write_private
from worker.label_studio.api import LabelStudioApi
from worker.label_studio.connection import BackendAddress

logger = logging.getLogger(__name__)

_TRUTH = Path("/exports/truth")  # in the volume that the workers `data` and `train` have, too


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
    truth: Path | None  # where base set and replay data go; None: other weights are served

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
            truth=_TRUTH if Path(environ.get("OSPREY_MODEL") or OSPREY_NANO) == OSPREY_NANO else None,
        )


def run_init(settings: InitSettings) -> None:
    """Make what is missing.

    Raises:
        StackError: Label Studio refuses the login, the token or the project.
        OspreyError: the base set cannot be written.
    """
    token = settings.token
    if not token_works(settings.label_studio_url, token):
        token = make_token(settings.label_studio_url, settings.username, settings.password)
        write_private(settings.token_file, f"OSPREY_LABEL_STUDIO_TOKEN={shlex.quote(token)}\n")
        # The services run as different users; the volume itself is what keeps strangers out.
        settings.token_file.chmod(0o644)
    api = LabelStudioApi(settings.label_studio_url, token)
    try:
        project_id = ensure_project(api, settings.backend, logger.info)
    finally:
        api.close()
    if settings.truth is not None:
        write_sample_sets(settings.truth)
    logger.info("ready: %s/projects/%d/data", settings.public_url, project_id)
    logger.info("log in as %s password %s", settings.username, settings.password)


def _unquoted(text: str) -> str:
    return "".join(shlex.split(text))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        run_init(InitSettings.from_env(os.environ, Path("/secrets")))
    except (StackError, OspreyError) as error:
        sys.exit(str(error))
