"""Data configs -> one data set: the table of readers, the check of every entry, and the treatment of bad entries.

A data config is a list of {type, ann_file, img_prefix}, as in the released code, with an optional `weight`. An entry
may have a `weight` too; `Sample.weight` is their product. Opening a file parses every entry once and keeps only byte
ranges; masks and images are read per sample.
"""

from __future__ import annotations

import bisect
import itertools
import json
import logging
import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Dataset

from osprey_model.data import coco_format, llava, osprey_724k
from osprey_model.data.collate import Sample
from osprey_model.data.entries import CocoEntries, Entries, open_lines, open_list
from osprey_model.data.questions import questions
from osprey_model.data.records import Draws, FirstDraws, RandomDraws, ReadImage, Record
from osprey_model.data.vcr import vcr, vcr_released
from osprey_model.inputs.prompts import TRAINING, Template
from osprey_model.inputs.tokenizer import OspreyTokenizer

logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]
# The errors that a wrong entry, image or metadata file can cause in a reader.
_ENTRY_ERRORS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError)


class BadEntry(ValueError):
    """An entry cannot become a training sample; the message names file and index."""

    def __init__(self, path: Path, where: int | str, reason: object) -> None:
        """Describe a bad entry.

        Args:
            path: the annotation file.
            where: index of the entry, or its name.
            reason: an exception or a text.
        """
        text = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason)
        at = f"entry {where}" if isinstance(where, int) else where
        super().__init__(f'{path}, {at}: {text}; correct it, or leave bad entries out with on_error="skip"')
        self.path, self.where = path, where


@dataclass(frozen=True, slots=True)
class Reader:
    """The two functions that read a `type`: file -> entries, and entry -> record (None: it has nothing to learn)."""

    open: Callable[[Path], Entries]
    record: Callable[[dict[str, Any], Path, Draws], Record | None]


READERS: dict[str, Reader] = {
    # stage 1, and LLaVA's conversations on whole images
    "llava": Reader(open_list, llava.conversation),
    # stage 2
    "coco_data": Reader(CocoEntries, coco_format.COCO.record),
    "RefCOCO": Reader(CocoEntries, coco_format.REFCOCO.record),
    "RefCOCOP": Reader(CocoEntries, coco_format.REFCOCOP.record),
    "PascalPart": Reader(CocoEntries, coco_format.PASCAL_PART.record),
    "PartImagenet": Reader(CocoEntries, coco_format.PART_IMAGENET.record),
    # stage 3: Osprey-724K, then Visual Genome and VCR
    "OspreyDetailedDescription": Reader(open_list, osprey_724k.detailed_description),
    "OspreyConversations": Reader(open_list, osprey_724k.conversations),
    "OspreyShortForm": Reader(open_list, osprey_724k.short_form),
    "OspreyPartLevel": Reader(open_list, osprey_724k.part_level),
    "OspreyLVISPosNeg": Reader(open_list, osprey_724k.lvis_positive_negative),
    "VGDATA": Reader(CocoEntries, coco_format.VISUAL_GENOME.record),
    "vcr": Reader(open_lines, vcr),
    "OspreyQuestions": Reader(open_list, questions),  # ours: questions as a service asks them
    "vcr_released": Reader(open_lines, vcr_released),  # with the off-by-one names of the released code
}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One row of a data config; `type` is a key of READERS."""

    type: str
    ann_file: Path
    img_prefix: Path
    weight: float = 1.0


def read_data_config(path: Path | str) -> list[DataFile]:
    """Read the rows of a JSON data config; relative paths are relative to its folder.

    Raises:
        ValueError: the file is not a list of objects with the keys type, ann_file, img_prefix and optionally weight.
    """
    path = Path(path)
    rows, keys = json.loads(path.read_text(encoding="utf-8")), {"type", "ann_file", "img_prefix"}
    if not isinstance(rows, list) or any(not isinstance(row, dict) or set(row) - {"weight"} != keys for row in rows):
        raise ValueError(f"{path}: expected a list of objects with the keys {sorted(keys)} and optionally weight")
    folder = path.parent
    return [
        DataFile(row["type"], folder / row["ann_file"], folder / row["img_prefix"], positive_weight(row))
        for row in rows
    ]


def positive_weight(row: dict[str, Any]) -> float:
    """Return the `weight` of a row or an entry; the default is 1.

    Raises:
        ValueError: the weight is not a positive number.
    """
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight) or weight <= 0:
        raise ValueError(f"expected a positive number for weight, got {weight!r}; remove what should not count")
    return float(weight)


@dataclass(frozen=True, slots=True)
class SampleBuilder:
    """Record -> sample, for one model.

    Attributes:
        tokenizer: of the model.
        read_image: image file -> the model's input.
        template: of the conversations; None is that of stage 1, see `Record.ids`.
        check: a further check of every sample; an exception makes the entry a bad one.
    """

    tokenizer: OspreyTokenizer
    read_image: ReadImage
    template: Template | None = TRAINING
    check: Callable[[Sample], None] | None = None

    def build(self, record: Record) -> Sample:
        """Make ids and labels, read image and masks, and check the sample; raises the errors of all of these."""
        sample = record.sample(self.tokenizer, self.read_image, template=self.template)
        if self.check is not None:
            self.check(sample)
        return sample


class Source:
    """The usable entries of one annotation file.

    Attributes:
        skipped: bad entries that are left out (only with on_error="skip").
        num_empty: number of entries that are left out because they contain nothing to learn.
    """

    def __init__(
        self, file: DataFile, *, on_error: OnError = "raise", check: Callable[[Record], None] | None = None
    ) -> None:
        """Check every entry of the file, without masks and images.

        Args:
            file: the row of the data config.
            on_error: "raise" at the first bad entry, or "skip" bad entries.
            check: a further check of every record; an exception makes the entry a bad one.

        Raises:
            BadEntry: the first bad entry, with on_error="raise".
            BadFile: the file as a whole cannot be read.
            FileNotFoundError: the file does not exist.
            ValueError: the type or `on_error` is unknown.
        """
        if file.type not in READERS:
            raise ValueError(f"unknown type {file.type!r} for {file.ann_file}; known: {', '.join(READERS)}")
        if on_error not in ("raise", "skip"):
            raise ValueError(f'expected on_error "raise" or "skip", got {on_error!r}')
        self.file, self._reader, self._check_record = file, READERS[file.type], check
        self._entries = self._reader.open(file.ann_file)
        self._usable = array("q")
        self.skipped: list[BadEntry] = []
        self.num_empty = 0
        for where, reason in self._entries.problems.items():
            self._leave_out(BadEntry(file.ann_file, where, reason), on_error)
        for idx in range(len(self._entries)):
            self._check(idx, on_error)
        logger.info(
            "%s: %d samples, %d bad entries skipped, %d empty",
            file.ann_file,
            len(self._usable),
            len(self.skipped),
            self.num_empty,
        )

    def _check(self, idx: int, on_error: OnError) -> None:
        try:
            record = self._record(idx, FirstDraws(), self._check_record)
        except BadEntry as problem:
            self._leave_out(problem, on_error)
            return
        if record is None:
            self.num_empty += 1
        else:
            self._usable.append(idx)

    def _leave_out(self, problem: BadEntry, on_error: OnError) -> None:
        if on_error == "raise":
            raise problem
        logger.warning("skipped: %s", problem)
        self.skipped.append(problem)

    def _record(self, idx: int, draws: Draws, check: Callable[[Record], None] | None = None) -> Record | None:
        try:
            entry = self._entries.load(idx)
            record = self._reader.record(entry, self.file.img_prefix, draws)
            if record is None:
                return None
            if check is not None:
                check(record)
            return replace(record, weight=self.file.weight * positive_weight(entry))
        except _ENTRY_ERRORS as problem:
            raise BadEntry(self.file.ann_file, idx, problem) from problem

    def __len__(self) -> int:
        """Number of usable entries."""
        return len(self._usable)

    def entry_idx(self, position: int) -> int:
        """Return the index in the file of the usable entry at `position`."""
        return self._usable[position]

    def record(self, position: int, draws: Draws) -> Record:
        """Read the usable entry at `position`, with the random choices of `draws`.

        Raises:
            BadEntry: the file has changed since it was opened.
        """
        record = self._record(self._usable[position], draws)
        if record is None:
            raise BadEntry(self.file.ann_file, self._usable[position], "it became empty after the file was opened")
        return record

    def sample(self, position: int, draws: Draws, builder: SampleBuilder) -> Sample:
        """Build the sample of the usable entry at `position`.

        Raises:
            BadEntry: its image or a mask cannot be read, or its labels cannot be made.
        """
        try:
            return builder.build(self.record(position, draws))
        except BadEntry:
            raise
        except _ENTRY_ERRORS as problem:
            raise BadEntry(self.file.ann_file, self._usable[position], problem) from problem


class MixtureDataset(Dataset[Sample]):
    """All entries of all sources, one source after the other. A random sampler may shuffle them.

    The random choices for a sample depend only on (seed, epoch, index), so they are the same in every loader process
    and in a resumed run.
    """

    def __init__(
        self, sources: Sequence[Source], builder: SampleBuilder, *, seed: int = 0, on_error: OnError = "raise"
    ) -> None:
        """Join sources.

        Args:
            sources: the files.
            builder: makes a sample from a record.
            seed: of the random choices.
            on_error: "raise" a bad sample's error, or "skip" to replace the sample by the next good one.

        Raises:
            ValueError: the sources have no sample.
        """
        self._ends = list(itertools.accumulate(len(source) for source in sources))
        if not self._ends or not self._ends[-1]:
            raise ValueError(f"no sample in {[str(source.file.ann_file) for source in sources]}")
        self.sources = tuple(sources)
        self._builder = builder
        self._seed, self._epoch, self._on_error = seed, 0, on_error
        # In shared memory, so that this process knows the bad samples that loader processes find.
        self._replaced = torch.zeros(self._ends[-1], dtype=torch.bool)
        torch.Tensor.share_memory_(self._replaced)  # type: ignore[no-untyped-call]

    def replaced(self) -> list[BadEntry]:
        """Return the samples that were replaced because their image, masks or labels are bad, each with its error.

        Each of them is read once more, to find its error.
        """
        return [self._problem(int(idx)) for idx in self._replaced.nonzero()[:, 0]]

    def set_epoch(self, epoch: int) -> None:
        """Make other random choices for the same entries. accelerate's data loader calls this before every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Number of samples."""
        return self._ends[-1]

    def __getitem__(self, idx: int) -> Sample:
        """Return sample `idx`; with on_error="skip", the next good sample if it is bad.

        Raises:
            BadEntry: the sample is bad (with on_error="raise"), or all samples are.
            IndexError: there is no such sample.
        """
        if not 0 <= idx < len(self):
            raise IndexError(f"sample {idx} of {len(self)}")
        for step in range(len(self)):
            try:
                return self._sample((idx + step) % len(self))
            except BadEntry as problem:
                if self._on_error == "raise" or step == len(self) - 1:
                    raise
                self._replaced[(idx + step) % len(self)] = True
                logger.warning("replaced by the next sample: %s", problem)
        raise AssertionError("the last step returns or raises")

    def _problem(self, idx: int) -> BadEntry:
        # The error occurred in a loader process; this process knows only that there was one.
        try:
            self._sample(idx)
        except BadEntry as problem:
            return problem
        source, position = self._place(idx)
        reason = "could not be read during training, but can be read now"
        return BadEntry(source.file.ann_file, source.entry_idx(position), reason)

    def _place(self, idx: int) -> tuple[Source, int]:
        at = bisect.bisect_right(self._ends, idx)
        return self.sources[at], idx - (self._ends[at - 1] if at else 0)

    def _sample(self, idx: int) -> Sample:
        source, position = self._place(idx)
        generator = torch.Generator().manual_seed(hash((self._seed, self._epoch, idx)) & (2**63 - 1))
        return source.sample(position, RandomDraws(generator), self._builder)
