"""The correction store: a database of the model's answers and the values that annotators submitted.

A task is written as a whole: `save` replaces its stored state by the present state in Label Studio, so saving the same
state twice changes nothing. Webhooks and reconcile may read the same task at the same time. `save` therefore takes the
project's `revision` from before the reading and writes nothing if another process has stored the task since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, Row, create_engine, func, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from job_queue.errors import OspreyError
from learning.corrections.records import Corrections, Counts, Pair, StoredRegion, TaskState
from learning.corrections.schema import (
    AnnotationRow,
    ConfigRow,
    PairRow,
    ProblemRow,
    ProjectRow,
    RegionRow,
    StoreUnusable,
    TaskRow,
    prepare,
    set_up,
)
from learning.corrections.task_rows import differs, plain_text, replace_task
from learning.submitted.problems import Problem
from learning.submitted.regions import SubmittedRegion

_FETCHED_AT_ONCE = 200  # regions in memory while iterating; a mask is a few kilobytes


class Superseded(OspreyError):
    """Another process stored the task since the revision was taken; read it from Label Studio again."""


class Store:
    """One database. Threads may share it. Close it after use, or use it in a `with` statement."""

    def __init__(self, engine: Engine) -> None:
        """Use `open` instead, unless the tables exist already (`learning.corrections.schema.prepare`)."""
        self._engine = engine
        self._writer = engine.execution_options(osprey_writes=True)

    @classmethod
    def open(cls, url: str) -> Self:
        """Open the store at a SQLAlchemy URL: `sqlite:////folder/file.db` or `postgresql+psycopg://...`.

        Raises:
            StoreUnusable: the URL is invalid, there is no connection, or a newer release wrote the database.
        """
        try:
            engine = create_engine(url, pool_pre_ping=True)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise StoreUnusable(
                "OSPREY_DATABASE_URL must be sqlite:////path/to/file.db or "
                f"postgresql+psycopg://user:password@host/database: {error}"
            ) from error
        try:
            set_up(engine)
            if engine.dialect.name == "sqlite" and engine.url.database not in (None, "", ":memory:"):
                Path(str(engine.url.database)).parent.mkdir(parents=True, exist_ok=True)
            prepare(engine)
        except StoreUnusable:
            engine.dispose()
            raise
        except (SQLAlchemyError, OSError) as error:
            engine.dispose()
            raise StoreUnusable(
                f"the correction store {make_url(url).render_as_string(hide_password=True)} cannot be opened: "
                f"{error}; check OSPREY_DATABASE_URL"
            ) from error
        return cls(engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def note_project(self, project_id: int, title: str, config_xml: str) -> str:
        """Store a project's title and present labeling config; return the config's hash, which annotations refer to."""
        config_hash = hashlib.sha256(config_xml.encode("utf-8", "surrogatepass")).hexdigest()
        known = {"title": plain_text(title), "config_hash": config_hash}
        with self._engine.connect() as connection:
            row = connection.execute(
                select(ProjectRow.title, ProjectRow.config_hash).where(ProjectRow.id == project_id)
            ).first()
        if row is not None and (row.title, row.config_hash) == (known["title"], config_hash):
            return config_hash
        with self._writer.begin() as connection:
            self._insert_once(connection, ProjectRow, {"id": project_id, "revision": 0, **known})
            self._insert_once(connection, ConfigRow, {"hash": config_hash, "xml": config_xml})
            connection.execute(update(ProjectRow).where(ProjectRow.id == project_id).values(known))
        return config_hash

    def label_config(self, config_hash: str) -> str:
        """Return the XML of a labeling config.

        Raises:
            KeyError: the store has no such config.
        """
        with self._engine.connect() as connection:
            xml = connection.execute(select(ConfigRow.xml).where(ConfigRow.hash == config_hash)).scalar()
        if xml is None:
            raise KeyError(f"the correction store has no labeling config {config_hash}")
        return str(xml)

    def project(self, project_id: int) -> tuple[str, str] | None:
        """Return title and present labeling config of a project; None if it was never collected."""
        query = select(ProjectRow.title, ConfigRow.xml).join(ConfigRow, ConfigRow.hash == ProjectRow.config_hash)
        with self._engine.connect() as connection:
            row = connection.execute(query.where(ProjectRow.id == project_id)).first()
        return None if row is None else (row.title, row.xml)

    def projects(self) -> dict[int, str]:
        """Return the titles of the stored projects by number."""
        with self._engine.connect() as connection:
            return {row.id: row.title for row in connection.execute(select(ProjectRow).order_by(ProjectRow.id))}

    def revision(self, project_id: int) -> int:
        """Return a number that grows with every change of the project; 0 if the project is not stored."""
        with self._engine.connect() as connection:
            return self._revision(connection, project_id)

    def watermark(self, project_id: int) -> str | None:
        """Return the `updated_at` of Label Studio up to which all tasks were read; None before the first time."""
        with self._engine.connect() as connection:
            return connection.execute(select(ProjectRow.watermark).where(ProjectRow.id == project_id)).scalar()

    def set_watermark(self, project_id: int, updated_at: str) -> None:
        """Store the `updated_at` up to which reconcile has read."""
        with self._writer.begin() as connection:
            connection.execute(update(ProjectRow).where(ProjectRow.id == project_id).values(watermark=updated_at))

    def stamps(self, project_id: int) -> dict[int, str]:
        """Return the stamp of every task that is not deleted, for comparison with Label Studio's list."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(TaskRow.id, TaskRow.stamp).where(TaskRow.project_id == project_id, ~TaskRow.is_deleted)
            )
            return {row.id: row.stamp for row in rows}

    def task_of(self, project_id: int, annotation_id: int) -> int | None:
        """Return the task of a stored annotation, even of a deleted one; None if it is not stored."""
        with self._engine.connect() as connection:
            return connection.execute(
                select(AnnotationRow.task_id).where(
                    AnnotationRow.project_id == project_id, AnnotationRow.id == annotation_id
                )
            ).scalar()

    def save(self, state: TaskState, since: int) -> bool:
        """Replace the stored state of a task; return whether that changed anything.

        Args:
            state: the task as Label Studio has it now, with all annotations.
            since: `revision` of the project, taken before the task was read from Label Studio.

        Raises:
            Superseded: another process stored the task in between; nothing is written.
        """
        return self._write(state.project_id, state.task_id, since, state)

    def remove_task(self, project_id: int, task_id: int, since: int) -> bool:
        """Mark a task and its annotations as deleted; arguments, result and errors are those of `save`."""
        return self._write(project_id, task_id, since, None)

    def regions(
        self, project_id: int, *, include_blind: bool = True, after_revision: int = 0
    ) -> Iterator[StoredRegion]:
        """Yield the regions of all annotations that are neither deleted nor skipped.

        They are ordered by task, annotation and position, so the order is the same every time.

        Args:
            project_id: the project.
            include_blind: also yield regions whose fields the backend left empty.
            after_revision: only yield regions of annotations that were added or changed after this revision.
        """
        annotation, task = AnnotationRow, TaskRow
        query = (
            select(
                RegionRow.body, RegionRow.is_blind, RegionRow.is_corrected,
                annotation.config_hash, annotation.created_at, annotation.revision,
                task.image_url, task.image_sha256, task.arm,
            )
            .join(annotation, _same_annotation(RegionRow))
            .join(task, (task.project_id == RegionRow.project_id) & (task.id == RegionRow.task_id))
            .where(RegionRow.project_id == project_id, annotation.revision > after_revision)
            .order_by(RegionRow.task_id, RegionRow.annotation_id, RegionRow.position)
        )  # fmt: skip
        if not include_blind:
            query = query.where(~RegionRow.is_blind)
        for row in self._rows(query):
            yield StoredRegion(
                project_id=project_id,
                region=SubmittedRegion.from_json(row.body),
                image_url=row.image_url,
                image_sha256=row.image_sha256,
                config_hash=row.config_hash,
                created_at=row.created_at,
                is_blind=row.is_blind,
                is_corrected=row.is_corrected,
                arm=row.arm,
                revision=row.revision,
            )

    def pairs(self, project_id: int) -> Iterator[Pair]:
        """Yield the model's answer and the final value of every field, in the order of `regions`."""
        query = (
            select(PairRow, RegionRow.region_id, RegionRow.model_version, RegionRow.is_blind)
            .join(
                RegionRow,
                (RegionRow.project_id == PairRow.project_id)
                & (RegionRow.task_id == PairRow.task_id)
                & (RegionRow.annotation_id == PairRow.annotation_id)
                & (RegionRow.position == PairRow.position),
            )
            .where(PairRow.project_id == project_id)
            .order_by(PairRow.task_id, PairRow.annotation_id, PairRow.position, PairRow.field)
        )
        for row in self._rows(query):
            yield Pair(
                    row.task_id, row.annotation_id, row.region_id, row.field, row.predicted, row.final,
                    row.is_changed, row.confidence, row.model_version, row.is_blind,
                )  # fmt: skip

    def problems(self, project_id: int) -> list[Problem]:
        """Return everything that could not be used, ordered by task."""
        query = (
            select(ProblemRow)
            .where(ProblemRow.project_id == project_id)
            .order_by(ProblemRow.task_id, ProblemRow.position)
        )
        with self._engine.connect() as connection:
            return [
                Problem(row.task_id, row.annotation_id, row.region_id, row.problem, row.kind)
                for row in connection.execute(query)
            ]

    def counts(self, project_id: int) -> Counts:
        """Return the counts of a project."""
        tasks, annotations, regions = TaskRow.project_id, AnnotationRow.project_id, RegionRow.project_id
        alive = ~AnnotationRow.is_deleted
        with self._engine.connect() as connection:

            def count(column: Any, *conditions: Any) -> int:
                found = connection.execute(select(func.count()).where(column == project_id, *conditions)).scalar()
                return int(found or 0)

            return Counts(
                tasks=count(tasks, ~TaskRow.is_deleted),
                annotations=count(annotations, alive, ~AnnotationRow.is_skipped),
                skipped_annotations=count(annotations, alive, AnnotationRow.is_skipped),
                deleted_annotations=count(annotations, AnnotationRow.is_deleted),
                regions=count(regions),
                corrected_regions=count(regions, RegionRow.is_corrected),
                drawn_regions=count(regions, RegionRow.model_version.is_(None)),
                blind_regions=count(regions, RegionRow.is_blind),
                problems=count(ProblemRow.project_id),
            )

    def corrections_since(self, project_id: int, revision: int) -> Corrections:
        """Return how many regions were submitted and corrected after a revision; fine-tunes start by that."""
        with self._engine.connect() as connection:
            now = self._revision(connection, project_id)
            found = connection.execute(
                select(func.count(), func.count().filter(RegionRow.is_corrected))
                .select_from(RegionRow)
                .join(AnnotationRow, _same_annotation(RegionRow))
                .where(
                    RegionRow.project_id == project_id,
                    AnnotationRow.revision > revision,
                    AnnotationRow.revision <= now,
                )
            ).one()
        return Corrections(now, int(found[0]), int(found[1]))

    def _rows(self, query: Any) -> Iterator[Row[Any]]:
        """Yield the rows of a query in batches; the cursor is closed even if the reader stops early."""
        with (
            self._engine.connect() as connection,
            connection.execution_options(yield_per=_FETCHED_AT_ONCE).execute(query) as result,
        ):
            yield from result

    def _write(self, project_id: int, task_id: int, since: int, state: TaskState | None) -> bool:
        """Write a state, or with None the deletion, of a task; return whether that changed anything."""
        here = (TaskRow.project_id == project_id, TaskRow.id == task_id)
        with self._writer.connect() as connection:  # leaving the block without a commit undoes all writes
            # Locks the project's row, so that writers of a project take turns and revisions are in order.
            revision = connection.execute(
                update(ProjectRow)
                .where(ProjectRow.id == project_id)
                .values(revision=ProjectRow.revision + 1)
                .returning(ProjectRow.revision)
            ).scalar()
            if revision is None:
                raise KeyError(f"project {project_id} is not stored; call note_project first")
            known = connection.execute(select(TaskRow).where(*here)).first()
            if known is not None and known.revision > since:
                raise Superseded(f"another process stored task {task_id} of project {project_id} in the meantime")
            if not differs(known, state):
                connection.rollback()  # also undo the new revision, because nothing has changed
                if state is not None and known is not None and known.stamp != state.stamp:
                    connection.execute(update(TaskRow).where(*here).values(stamp=state.stamp))
                    connection.commit()
                return False
            replace_task(connection, project_id, task_id, revision, state, exists=known is not None)
            connection.commit()
        return True

    def _revision(self, connection: Connection, project_id: int) -> int:
        found = connection.execute(select(ProjectRow.revision).where(ProjectRow.id == project_id)).scalar()
        return int(found or 0)

    def _insert_once(self, connection: Connection, table: type[Any], values: Mapping[str, Any]) -> None:
        """Insert a row unless its key exists, even if another process inserts it at the same time."""
        if self._engine.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as upsert
        else:
            from sqlalchemy.dialects.sqlite import insert as upsert  # type: ignore[assignment]
        connection.execute(upsert(table).values(values).on_conflict_do_nothing())


def _same_annotation(table: type[RegionRow]) -> Any:
    return (
        (AnnotationRow.project_id == table.project_id)
        & (AnnotationRow.task_id == table.task_id)
        & (AnnotationRow.id == table.annotation_id)
    )
