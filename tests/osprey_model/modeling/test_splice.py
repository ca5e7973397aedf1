"""Every placeholder gets its token, and placeholders that do not fit raise an error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from osprey_model.config import IGNORE_INDEX, IMAGE_TOKEN_ID
from osprey_model.modeling.mask_extractor import RegionTokens
from osprey_model.modeling.splice import PlaceholderMismatch, SplicedBatch, splice

MASK, POSITION = 50, 51


def table(ids: Tensor) -> Tensor:
    """An embedding table of 50 rows whose values are the id that was looked up."""
    assert int(ids.max()) < MASK
    assert int(ids.min()) >= 0
    return ids[..., None].expand(*ids.shape, 2).float()


def regions(num: int) -> RegionTokens:
    values = torch.arange(num, dtype=torch.float32)
    return RegionTokens(
        (100 + values)[:, None].expand(num, 2),
        (200 + values)[:, None].expand(num, 2),
        torch.ones(num, 4, dtype=torch.long),
        torch.ones(num, dtype=torch.long),
    )


IMAGE_2TOKENS = torch.tensor([[[70.0, 70.0], [71.0, 71.0]]])


def splice_ids(
    ids: list[int], num_regions: int = 0, image: Tensor | None = IMAGE_2TOKENS, labels: list[int] | None = None
) -> SplicedBatch:
    return splice(
        torch.tensor([ids]),
        embed=table,
        mask_token_id=MASK,
        image_tokens_BND=image,
        regions=[regions(num_regions)] if num_regions else None,
        labels_BL=None if labels is None else torch.tensor([labels]),
    )


def test_every_placeholder_gets_its_token() -> None:
    """Image tokens stand at -200, the k-th mask token at the k-th `<mask>`, its spatial token at the next id."""
    ids = [1, IMAGE_TOKEN_ID, 7, MASK, POSITION, 8, MASK, 9, 10]
    batch = splice_ids(ids, 2, labels=ids)
    assert batch.inputs_embeds_BTD[0, :, 0].tolist() == [1, 70, 71, 7, 100, 200, 8, 101, 201, 10]
    ignored = IGNORE_INDEX
    assert batch.labels_BT is not None
    assert batch.labels_BT[0].tolist() == [1, ignored, ignored, 7, ignored, ignored, 8, ignored, ignored, 10]


def test_rows_of_unequal_length_are_padded_on_the_right() -> None:
    """Samples with and without image are padded on the right; padding ids are not embedded."""
    batch = splice(
        torch.tensor([[1, IMAGE_TOKEN_ID, 5], [1, 6, 0]]),
        embed=table,
        mask_token_id=MASK,
        image_tokens_BND=IMAGE_2TOKENS.expand(2, -1, -1),
        attention_mask_BL=torch.tensor([[True, True, True], [True, True, False]]),
        labels_BL=torch.tensor([[1, 2, 5], [1, 6, 9]]),
    )
    assert batch.inputs_embeds_BTD[:, :, 0].tolist() == [[1, 70, 71, 5], [1, 6, 0, 0]]
    assert batch.attention_mask_BT.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.labels_BT is not None
    assert batch.labels_BT[1].tolist() == [1, 6, IGNORE_INDEX, IGNORE_INDEX]


@pytest.mark.parametrize(
    ("ids", "num_regions", "image", "said"),
    [
        ([1, IMAGE_TOKEN_ID, MASK, POSITION], 2, True, "1 <mask> placeholders but 2 masks"),
        ([1, IMAGE_TOKEN_ID, 5], 1, True, "0 <mask> placeholders but 1 masks"),
        ([1, IMAGE_TOKEN_ID, MASK, POSITION], 0, True, "1 <mask> placeholders but 0 masks"),
        ([1, MASK, POSITION, IMAGE_TOKEN_ID], 1, True, "<mask> without an <image> before it"),
        ([1, MASK, POSITION], 1, True, "<mask> without an <image> before it"),
        ([1, IMAGE_TOKEN_ID, MASK], 1, True, "ends with <mask>"),
        ([1, IMAGE_TOKEN_ID, IMAGE_TOKEN_ID], 0, True, "2 <image> placeholders"),
        ([1, IMAGE_TOKEN_ID], 0, False, "no image was given"),
    ],
)
def test_what_does_not_fit_is_named(ids: list[int], num_regions: int, image: bool, said: str) -> None:
    """If placeholders do not fit, an error names the sample and both numbers; no region is shifted silently."""
    with pytest.raises(PlaceholderMismatch, match=said):
        splice_ids(ids, num_regions, IMAGE_2TOKENS if image else None)
