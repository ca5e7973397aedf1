"""Make random passwords for the compose stack, once, in a folder that its services share.

`python -m stack.compose_secrets FOLDER` may run any number of times. It never changes a file that exists: a database
keeps the password of its first start. Only the standard library is needed.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

DEFAULT_USERNAME = "admin@osprey.local"


def make_secrets(folder: Path, environ: Mapping[str, str]) -> None:
    """Write every file that does not exist yet.

    The files are `redis_password`, `redis.conf`, `postgres_password`, `label-studio.env`, `osprey.env` and `store.env`.
    A POSIX shell can source the `.env` files.

    Args:
        folder: where the files are.
        environ: `OSPREY_LABEL_STUDIO_USERNAME` and `OSPREY_LABEL_STUDIO_PASSWORD` are the login of the first user;
            empty or absent: the default name and a random password.
    """
    folder.mkdir(parents=True, exist_ok=True)
    redis_password = _keep(folder / "redis_password", secrets.token_urlsafe(24))
    postgres_password = _keep(folder / "postgres_password", secrets.token_urlsafe(24))
    _keep(
        folder / "redis.conf",
        f"requirepass {redis_password}\nappendonly yes\nappendfsync everysec\nmaxmemory-policy noeviction\n",
    )
    username = environ.get("OSPREY_LABEL_STUDIO_USERNAME") or DEFAULT_USERNAME
    password = environ.get("OSPREY_LABEL_STUDIO_PASSWORD") or secrets.token_urlsafe(12)
    _keep(
        folder / "label-studio.env",
        _shell_lines(
            LABEL_STUDIO_USERNAME=username, LABEL_STUDIO_PASSWORD=password, POSTGRE_PASSWORD=postgres_password
        ),
    )
    _keep(
        folder / "osprey.env",
        _shell_lines(
            OSPREY_REDIS_URL=f"redis://:{redis_password}@redis:6379/0",
            OSPREY_BACKEND_USER="label-studio",
            OSPREY_BACKEND_PASSWORD=secrets.token_urlsafe(24),
            OSPREY_WEBHOOK_SECRET=secrets.token_urlsafe(24),
        ),
    )
    # The corrections have a schema of their own in Label Studio's database.
    database = f"postgresql+psycopg://labelstudio:{postgres_password}@postgres/labelstudio"
    _keep(folder / "store.env", _shell_lines(OSPREY_DATABASE_URL=database))


def _keep(path: Path, content: str) -> str:
    """Write `content` unless the file exists; return what the file holds."""
    if not path.exists():
        draft = path.with_name(path.name + ".new")
        draft.write_text(content)
        # The services run as different users, so each must be able to read it; only these services mount the volume.
        draft.chmod(0o644)
        draft.replace(path)
    return path.read_text()


def _shell_lines(**values: str) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


if __name__ == "__main__":
    make_secrets(Path(sys.argv[1]), os.environ)
