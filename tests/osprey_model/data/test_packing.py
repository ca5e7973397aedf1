"""Questions packed behind one prefix have the same loss as the questions one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osprey_model.config import IGNORE_INDEX
from osprey_model.data.collate import Sample, collate
from osprey_model.data.conversation import SampleTooLong, encode_conversation
from osprey_model.data.mixture import BadEntry, DataFile, MixtureDataset, SampleBuilder, Source
from osprey_model.data.packing import QuestionRow, encode_rows
from osprey_model.data.records import PixelReader
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.prompts import INFERENCE, PREFIX_P, question_message
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.packed_rows import packed_positions
from osprey_model.weights.build import load_osprey

ROWS = (
    ("What is the category of {region}? Using only one word or phrase.", "region", "a red car"),
    ("What is the color of {region}?", "part", "red"),
    ("Can you give me a detailed description of {region}?", "region", "It is a long red car. It stands at the left."),
)


NANO = Path(__file__).parents[3] / "demo" / "checkpoints" / "osprey-nano"


@pytest.fixture(scope="module")
def tokenizer() -> OspreyTokenizer:
    """The small checkpoint's tokenizer."""
    return OspreyTokenizer.from_folder(NANO)


@pytest.fixture(scope="module")
def nano_model() -> OspreyForCausalLM:
    """The small checkpoint. Its decoder is trained, so it would use positions that it must not attend to."""
    return load_osprey(NANO)


def rows() -> list[QuestionRow]:
    """Return the rows as messages."""
    return [QuestionRow(question_message(text, form), answer) for text, form, answer in ROWS]


def image_and_masks(model: OspreyForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random pixels, and a mask per row."""
    draw = torch.Generator().manual_seed(3)
    side = model.sizes.image_size
    return torch.randn(3, side, side, generator=draw), (torch.rand(3, 40, 50, generator=draw) > 0.6).float()


def test_packed_loss_is_that_of_the_rows_alone(nano_model: OspreyForCausalLM, tokenizer: OspreyTokenizer) -> None:
    """The packed loss is the mean of each row's own loss, weighted by the square root of the answer's length."""
    image, masks = image_and_masks(nano_model)
    packed = Sample(encode_rows(tokenizer, rows(), template=INFERENCE), image, masks)
    alone, counts = [], []
    for idx, row in enumerate(rows()):
        ids = encode_conversation(tokenizer, [(PREFIX_P + row.message, row.answer)], template=INFERENCE)
        counts.append(sum(label != IGNORE_INDEX for label in ids.labels) ** 0.5)
        alone.append(collate([Sample(ids, image, masks[idx : idx + 1])], pad_token_id=0))
    with torch.no_grad():
        together = nano_model(**collate([packed], pad_token_id=0)).loss
        losses = torch.stack([nano_model(**batch).loss for batch in alone])
        expected = losses @ torch.tensor(counts) / sum(counts)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)


def test_packed_and_plain_samples_share_a_batch(nano_model: OspreyForCausalLM, tokenizer: OspreyTokenizer) -> None:
    """A batch of a packed and a plain sample has the weighted mean of their two losses."""
    image, masks = image_and_masks(nano_model)
    packed = Sample(encode_rows(tokenizer, rows(), template=INFERENCE), image, masks)
    ids = encode_conversation(tokenizer, [(PREFIX_P + rows()[0].message, "a boat")], template=INFERENCE)
    plain = Sample(ids, image, masks[:1])
    learned = sum(label != IGNORE_INDEX for label in ids.labels)
    counted = sum(packed.ids.weights)
    with torch.no_grad():
        both = nano_model(**collate([packed, plain], pad_token_id=0)).loss
        first, second = (nano_model(**collate([sample], pad_token_id=0)).loss for sample in (packed, plain))
    torch.testing.assert_close(both, (counted * first + learned * second) / (counted + learned), atol=1e-5, rtol=1e-5)


def test_weight_of_a_question(nano_model: OspreyForCausalLM, tokenizer: OspreyTokenizer) -> None:
    """A question of weight 2 has the effect of including the question twice."""
    image, masks = image_and_masks(nano_model)
    heavy = [QuestionRow(row.message, row.answer, 2.0 if idx == 1 else 1.0) for idx, row in enumerate(rows())]
    twice = [rows()[0], rows()[1], rows()[1], rows()[2]]
    with torch.no_grad():
        weighted, repeated = (
            nano_model(
                **collate([Sample(encode_rows(tokenizer, each, template=INFERENCE), image, given)], pad_token_id=0)
            ).loss
            for each, given in ((heavy, masks), (twice, masks[[0, 1, 1, 2]]))
        )
    torch.testing.assert_close(weighted, repeated, atol=1e-5, rtol=1e-5)


def test_positions_begin_again_at_every_row() -> None:
    """The prefix has the positions 0..2; every row begins at 3."""
    row_ids = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, -1], [0, 0, 0, 0, 1, 2, 2, -1, -1]])
    positions = packed_positions(row_ids)
    assert positions[0, :8].tolist() == [0, 1, 2, 3, 4, 3, 4, 5]
    assert positions[1, :7].tolist() == [0, 1, 2, 3, 4, 4, 5]


def test_only_the_longest_row_must_fit(tokenizer: OspreyTokenizer) -> None:
    """Rows have the same positions, so their total length may exceed the decoder's context."""
    ids = encode_rows(tokenizer, rows() * 20, template=INFERENCE)
    prefix = ids.row_ids.count(0) + 15  # the image counts 16 positions
    longest = max(ids.row_ids.count(row) for row in (1, 2, 3))
    ids.check_length(num_image_tokens=16, context=prefix + longest)
    with pytest.raises(SampleTooLong):
        ids.check_length(num_image_tokens=16, context=prefix + longest - 1)


def entry() -> dict[str, object]:
    """One image, two annotations, two questions."""
    squares = [[[4, 4, 20, 4, 20, 20, 4, 20]], [[30, 10, 40, 10, 40, 30, 30, 30]]]
    return {
        "file_name": "my_picture.png",
        "height": 40,
        "width": 50,
        "annotation": [{"segmentation": square} for square in squares],
        "questions": [
            {"region": 2, "text": ROWS[0][0], "form": "region", "answer": "car"},
            {"region": 1, "text": ROWS[1][0], "form": "part", "answer": "red", "weight": 3},
        ],
    }


def source(folder: Path, *entries: object) -> Source:
    """Write a file of entries and its image."""
    (folder / "questions.json").write_text(json.dumps(entries))
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / "my_picture.png")
    return Source(DataFile("OspreyQuestions", folder / "questions.json", folder))


def test_reader_pairs_masks_answers_and_weights(tmp_path: Path, tokenizer: OspreyTokenizer) -> None:
    """Masks are in the order of the questions, not of the annotations; the image's file name is not shortened."""
    data = MixtureDataset([source(tmp_path, entry())], SampleBuilder(tokenizer, PixelReader(ImagePreprocessor(64))))
    sample = data[0]
    assert sample.masks is not None
    assert sample.masks[0, 20, 35] == 1
    assert sample.masks[1, 10, 10] == 1
    given = zip(sample.ids.row_ids, sample.ids.weights, strict=True)
    tokens = [(row, weight) for row, weight in given if weight]
    lengths = {row: sum(r == row for r, _ in tokens) for row in (1, 2)}
    assert min(lengths.values()) > 1  # an answer and its end
    assert tokens == [(row, pytest.approx((1.0, 3.0)[row - 1] / lengths[row] ** 0.5)) for row, _ in tokens]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"region": 3}, "names region 3"),
        ({"answer": " "}, "needs an answer"),
        ({"weight": 0}, "above zero"),
        ({"form": "poem"}, "poem"),
        ({"text": "What is it?"}, "region"),
    ],
)
def test_bad_question_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    """The error names file, entry and reason."""
    bad = entry()
    bad["questions"][0].update(change)
    with pytest.raises(BadEntry, match=said):
        source(tmp_path, bad)
