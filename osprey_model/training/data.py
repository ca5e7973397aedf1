"""Data configs -> what the Trainer iterates over: checked sources, samples, batches.

Neighbours: `osprey_model/data/mixture.py` reads, `osprey_model/data/collate.py` pads, `feature_cache.py` may stand
in for reading and encoding an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from osprey_model.config import OspreyConfig
from osprey_model.data.collate import Batch, Sample, collate
from osprey_model.data.mixture import BadEntry, MixtureDataset, OnError, Source, read_data_config
from osprey_model.data.records import ReadImage, Record
from osprey_model.inputs.prompts import Template
from osprey_model.inputs.tokenizer import OspreyTokenizer


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """What can be known of a record before its masks are made and its image is opened."""

    tokenizer: OspreyTokenizer
    sizes: OspreyConfig
    template: Template | None

    def __call__(self, record: Record) -> None:
        """Labels, length and the image file.

        Raises:
            LabelMismatch: tokens of a prompt change with its answer.
            SampleTooLong: it does not fit the decoder's positions.
            FileNotFoundError: there is no image file.
        """
        ids = record.ids(self.tokenizer, self.template)
        ids.check_length(num_image_tokens=self.sizes.num_image_tokens, context=self.sizes.max_position_embeddings)
        if not record.image_path.is_file():
            raise FileNotFoundError(f"the image {record.image_path} does not exist; check img_prefix")


def open_data(
    config: Path,
    *,
    tokenizer: OspreyTokenizer,
    sizes: OspreyConfig,
    template: Template | None,
    read_image: ReadImage,
    seed: int,
    on_error: OnError,
    check: bool,
) -> MixtureDataset:
    """The samples of a data config.

    Args:
        config: JSON file, see `read_data_config`.
        tokenizer: of the model.
        sizes: of the model.
        template: None: captions of whole images.
        read_image: image file -> what the model takes.
        seed: of the drawn questions.
        on_error: "raise" at the first bad entry, or "skip" it.
        check: read every entry once, as `RecordCheck` does; without it labels, lengths and missing images are found
            when their turn comes.

    Raises:
        BadEntry: with file and index.
        ValueError: the config, or no sample in it.
    """
    record_check = RecordCheck(tokenizer, sizes, template) if check else None
    sources = [Source(file, on_error=on_error, check=record_check) for file in read_data_config(config)]
    return MixtureDataset(
        sources,
        tokenizer=tokenizer,
        read_image=read_image,
        seed=seed,
        on_error=on_error,
        template=template,
        check_sample=_LengthCheck(sizes),
    )


def bad_entries(dataset: MixtureDataset | None) -> list[BadEntry]:
    """What was left out when the files were opened."""
    return [] if dataset is None else [problem for source in dataset.sources for problem in source.skipped]


@dataclass(frozen=True, slots=True)
class _LengthCheck:
    """Drawn questions differ in length, so a sample is looked at again when it is made."""

    sizes: OspreyConfig

    def __call__(self, sample: Sample) -> None:
        sample.ids.check_length(
            num_image_tokens=self.sizes.num_image_tokens, context=self.sizes.max_position_embeddings
        )


@dataclass(frozen=True, slots=True)
class Collator:
    """Samples -> batch; a class, so that loader processes can be given one."""

    pad_token_id: int

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """See `collate`."""
        return collate(samples, pad_token_id=self.pad_token_id)
