"""Data configs -> the Trainer's input: checked sources, samples, batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from osprey_model.config import OspreyConfig
from osprey_model.data.collate import Batch, Sample, collate
from osprey_model.data.mixture import BadEntry, MixtureDataset, OnError, SampleBuilder, Source, read_data_config
from osprey_model.data.records import ReadImage, Record
from osprey_model.inputs.prompts import Template
from osprey_model.inputs.tokenizer import OspreyTokenizer


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """The checks of a record that need neither its masks nor its image."""

    tokenizer: OspreyTokenizer
    sizes: OspreyConfig
    template: Template | None

    def __call__(self, record: Record) -> None:
        """Check labels, length, and that the image file exists.

        Raises:
            LabelMismatch: the tokens of a prompt change when its answer follows.
            SampleTooLong: the conversation needs more positions than the decoder has.
            FileNotFoundError: the image file does not exist.
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
    """Open the data set of a data config.

    Args:
        config: JSON file, see `read_data_config`.
        tokenizer: the model's tokenizer.
        sizes: the model's config.
        template: the prompt template of conversations; None: captions of whole images.
        read_image: image file -> the model's input.
        seed: seed of the random choices, such as the wording of questions.
        on_error: "raise" at the first bad entry, or "skip" bad entries.
        check: apply `RecordCheck` to every entry now. Otherwise wrong labels, lengths and missing images are found only
            when the sample is read.

    Raises:
        BadEntry: the first bad entry, with on_error="raise"; the message has file and index.
        ValueError: the config is not valid, or has no sample.
    """
    record_check = RecordCheck(tokenizer, sizes, template) if check else None
    sources = [Source(file, on_error=on_error, check=record_check) for file in read_data_config(config)]
    builder = SampleBuilder(tokenizer, read_image, template, check=_LengthCheck(sizes))
    return MixtureDataset(sources, builder, seed=seed, on_error=on_error)


def bad_entries(dataset: MixtureDataset | None) -> list[BadEntry]:
    """Return the bad entries that were left out when the files were opened."""
    return [] if dataset is None else [problem for source in dataset.sources for problem in source.skipped]


@dataclass(frozen=True, slots=True)
class _LengthCheck:
    """Checks the length of each sample, because questions drawn for it may be longer than those of `RecordCheck`."""

    sizes: OspreyConfig

    def __call__(self, sample: Sample) -> None:
        sample.ids.check_length(
            num_image_tokens=self.sizes.num_image_tokens, context=self.sizes.max_position_embeddings
        )


@dataclass(frozen=True, slots=True)
class Collator:
    """Samples -> batch. It is a class, so that it can be pickled for loader processes."""

    pad_token_id: int

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Pad and stack samples; see `collate`."""
        return collate(samples, pad_token_id=self.pad_token_id)
