"""The tables of the correction store, and migrations of older databases.

SQLite and PostgreSQL have the same schema; only `store.py` and `task_rows.py` use it. Texts of annotators are in JSON
columns, because PostgreSQL's text type refuses the NUL characters and lone surrogates that a browser can send.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    Engine,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from job_queue.errors import OspreyError

SCHEMA_VERSION = 1
_POSTGRES_SCHEMA = "osprey"  # so that the tables can share a database with Label Studio's
_LOCK_ID = 0x05_72_65_79  # any number, the same in every process


class StoreUnusable(OspreyError):
    """The database cannot be opened, or a newer release wrote it. The message says what to do."""


class Table(DeclarativeBase):
    """Base class of the tables."""


class SchemaRow(Table):
    """One row: which schema version this database has."""

    __tablename__ = "schema_version"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(Integer)


class ProjectRow(Table):
    """A project of Label Studio. `revision` counts its changes; `watermark`: read up to this `updated_at`."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(String)
    config_hash: Mapped[str] = mapped_column(String)
    revision: Mapped[int] = mapped_column(BigInteger, default=0)
    watermark: Mapped[str | None] = mapped_column(String, default=None)


class ConfigRow(Table):
    """A labeling config that annotations were read with; the key is its SHA-256."""

    __tablename__ = "label_configs"
    hash: Mapped[str] = mapped_column(String, primary_key=True)
    xml: Mapped[Any] = mapped_column(JSON)


class TaskRow(Table):
    """A task that has or had annotations. `stamp` summarizes its state in Label Studio when it was read."""

    __tablename__ = "tasks"
    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    stamp: Mapped[str] = mapped_column(String)
    image_url: Mapped[Any] = mapped_column(JSON)
    image_name: Mapped[str] = mapped_column(String)
    image_sha256: Mapped[str | None] = mapped_column(String)
    arm: Mapped[str] = mapped_column(String)
    is_deleted: Mapped[bool] = mapped_column(Boolean)
    digest: Mapped[str] = mapped_column(String)
    revision: Mapped[int] = mapped_column(BigInteger)
    stored_at: Mapped[str] = mapped_column(String)


class AnnotationRow(Table):
    """One annotation. The row of a deleted one stays, without regions."""

    __tablename__ = "annotations"
    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    annotator: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[str | None] = mapped_column(String)
    updated_at: Mapped[str | None] = mapped_column(String)
    lead_time_s: Mapped[float | None] = mapped_column(Float)
    is_skipped: Mapped[bool] = mapped_column(Boolean)
    is_deleted: Mapped[bool] = mapped_column(Boolean)
    config_hash: Mapped[str] = mapped_column(String)
    is_complete: Mapped[bool] = mapped_column(Boolean)
    digest: Mapped[str] = mapped_column(String)
    revision: Mapped[int] = mapped_column(BigInteger)
    __table_args__ = (
        ForeignKeyConstraint(["project_id", "task_id"], ["tasks.project_id", "tasks.id"]),
        Index("annotations_by_id", "project_id", "id"),
        Index("annotations_by_revision", "project_id", "revision"),
    )


class RegionRow(Table):
    """One region of an annotation that is not deleted. `body` is a `SubmittedRegion` as JSON, mask included."""

    __tablename__ = "regions"
    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    annotation_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    region_id: Mapped[str] = mapped_column(String)
    origin: Mapped[str] = mapped_column(String)
    model_version: Mapped[str | None] = mapped_column(String)
    is_blind: Mapped[bool] = mapped_column(Boolean)
    is_corrected: Mapped[bool] = mapped_column(Boolean)
    body: Mapped[Any] = mapped_column(JSON)
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "task_id", "annotation_id"],
            ["annotations.project_id", "annotations.task_id", "annotations.id"],
        ),
    )


class PairRow(Table):
    """The model's answer and the final value of one field of a region; either may be missing."""

    __tablename__ = "pairs"
    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    annotation_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    field: Mapped[str] = mapped_column(String, primary_key=True)
    predicted: Mapped[Any] = mapped_column(JSON)
    final: Mapped[Any] = mapped_column(JSON)
    is_changed: Mapped[bool | None] = mapped_column(Boolean)  # None: nothing was predicted
    confidence: Mapped[float | None] = mapped_column(Float)
    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "task_id", "annotation_id", "position"],
            ["regions.project_id", "regions.task_id", "regions.annotation_id", "regions.position"],
        ),
    )


class ProblemRow(Table):
    """One thing in a task that could not be used, and the reason."""

    __tablename__ = "problems"
    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    annotation_id: Mapped[int | None] = mapped_column(BigInteger)
    region_id: Mapped[Any] = mapped_column(JSON)
    problem: Mapped[Any] = mapped_column(JSON)
    kind: Mapped[str] = mapped_column(String)
    __table_args__ = (ForeignKeyConstraint(["project_id", "task_id"], ["tasks.project_id", "tasks.id"]),)


Migration = Callable[[Connection], None]
# Schema version -> migration to the next one. Plain SQL for both databases; never edited after a release.
MIGRATIONS: Mapping[int, Migration] = {}


def prepare(engine: Engine, migrations: Mapping[int, Migration] = MIGRATIONS, target: int = SCHEMA_VERSION) -> None:
    """Create the tables, or migrate those of an older release, in one transaction.

    Raises:
        StoreUnusable: a newer release wrote the database.
    """
    # If two processes start together, the second waits for the first and then finds the work done.
    with engine.execution_options(osprey_writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_POSTGRES_SCHEMA}")
        namespace = _POSTGRES_SCHEMA if engine.dialect.name == "postgresql" else None
        if not inspect(connection).has_table(SchemaRow.__tablename__, schema=namespace):
            Table.metadata.create_all(connection, checkfirst=False)
            connection.execute(insert(SchemaRow).values(id=1, version=target))
            return
        found = connection.execute(select(SchemaRow.version)).scalar_one()
        if found > target:
            raise StoreUnusable(
                f"the correction store has schema version {found}, and this release supports versions up to {target}; "
                "run the newer release, or set OSPREY_DATABASE_URL to another database"
            )
        for version in range(found, target):
            migrations[version](connection)
        if found < target:
            connection.execute(update(SchemaRow).values(version=target))


def set_up(engine: Engine) -> None:
    """Configure every connection of the engine; call it before the first one is opened."""
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine)
    else:
        _set_up_postgres(engine)


def _set_up_postgres(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path TO {_POSTGRES_SCHEMA}")
        connection.commit()


def _set_up_sqlite(engine: Engine) -> None:
    """Let several processes share SQLite: many readers beside one writer (WAL), and explicit transactions."""

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver begins late, so two writers could read the same state
        cursor = connection.cursor()
        for pragma in ("busy_timeout=15000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("osprey_writes", False)
        # A writer takes the lock at once: after a read it could no longer wait for another writer.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
