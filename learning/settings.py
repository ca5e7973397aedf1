"""The settings for corrections, exports, fine-tunes and the gate, in addition to a worker's settings."""

from __future__ import annotations

from pathlib import Path

from job_queue.settings import PositiveWhole, ProjectNumbers, Switch, UserPath, setting
from worker import settings as worker_settings


class Settings(worker_settings.Settings):
    """The settings of the workers `data` and `train`, and of the commands that do the same work."""

    database_url: str = setting(
        f"sqlite:///{Path.home()}/.local/share/osprey-label-studio/corrections.db",
        "address of the correction store: `sqlite:////path/file.db` or `postgresql+psycopg://user:password@host/db`",
        shown="SQLite in `~/.local/share`", secret=True,
    )  # fmt: skip
    projects: ProjectNumbers = setting(
        (), "numbers of the projects whose corrections are collected, comma separated", shown="all that can be served",
        compose=True,
    )  # fmt: skip
    reconcile_s: PositiveWhole = setting(300, "seconds between two polls for changed tasks", compose=True)
    reconcile_full_s: PositiveWhole = setting(3600, "seconds between two polls for deleted tasks")
    exports: UserPath = setting(Path("exports"), "folder of export versions")
    base_set: UserPath | None = setting(
        None, "an export version on which no candidate may lose more than one point", compose=True
    )
    replay: UserPath | None = setting(None, "data config of old data that a fine-tune mixes in", compose=True)
    auto_promote: Switch = setting(False, "`on`: promote a candidate that passes the gate", compose=True)
    finetune_after: PositiveWhole | None = setting(
        None, "start a fine-tune after this many corrected regions", shown="never", compose=True
    )
    finetune_cron: str | None = setting(
        None, "when to fine-tune if there are new corrections, such as `0 3 * * *`", shown="never", compose=True
    )
