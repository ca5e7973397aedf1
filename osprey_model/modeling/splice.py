"""Put text, image and region embeddings at their placeholders: token ids -> decoder input.

# B samples, L token ids, T = L - 1 + N positions of the spliced sequence, N image tokens, D width, R regions

The id -200 becomes the N image tokens. Behind it, the k-th `<mask>` becomes the k-th region's mask token, and the id
that follows it, whichever it is, the k-th spatial token. `<mask>` and `<pos>` have no row in the embedding table, so
they must not be looked up there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from osprey_model.config import IGNORE_INDEX, IMAGE_TOKEN_ID
from osprey_model.modeling.mask_extractor import RegionTokens


class PlaceholderMismatch(ValueError):
    """The placeholders of a prompt do not fit the images or masks that were given with it."""


@dataclass(frozen=True, slots=True)
class SplicedBatch:
    """Decoder input, padded on the right; its positions are 0..T-1."""

    inputs_embeds_BTD: Tensor
    attention_mask_BT: Tensor
    labels_BT: Tensor | None
    image_at_B: Tensor  # position of each sample's first image token, -1 without an image
    num_image_tokens: int = 0

    def spread(self, values_BL: Tensor) -> Tensor:
        """Turn a value per id (B, L) into a value per position (B, T); all tokens of an image get its id's value."""
        if not self.num_image_tokens:
            return values_BL
        # The id of a position: the same index up to the image's first token; behind it N - 1 less, but not before the
        # image's id.
        num_positions = self.inputs_embeds_BTD.shape[1]
        places_T = torch.arange(num_positions, device=values_BL.device)
        image_at_B1 = self.image_at_B[:, None]
        behind_BT = places_T[None] - (self.num_image_tokens - 1)
        id_of_BT = torch.where(
            (image_at_B1 < 0) | (places_T[None] <= image_at_B1), places_T[None], behind_BT.maximum(image_at_B1)
        )
        return values_BL.gather(1, id_of_BT.clamp_max(values_BL.shape[1] - 1))

    def padded_left(self) -> tuple[Tensor, Tensor]:
        """Return embeddings and attention mask with the padding in front, as generation needs it."""
        pads_B = (~self.attention_mask_BT).sum(dim=1).tolist()
        embeds = [row.roll(pad, dims=0) for row, pad in zip(self.inputs_embeds_BTD, pads_B, strict=True)]
        masks = [row.roll(pad, dims=0) for row, pad in zip(self.attention_mask_BT, pads_B, strict=True)]
        return torch.stack(embeds), torch.stack(masks)


def splice(
    token_ids_BL: Tensor,
    *,
    embed: Callable[[Tensor], Tensor],
    mask_token_id: int,
    image_tokens_BND: Tensor | None = None,
    regions: Sequence[RegionTokens | None] | None = None,
    attention_mask_BL: Tensor | None = None,
    labels_BL: Tensor | None = None,
) -> SplicedBatch:
    """Build the decoder's input for a batch.

    Args:
        token_ids_BL: ids, among them -200 and the region ids, right padded.
        embed: the decoder's embedding table.
        mask_token_id: id of `<mask>`.
        image_tokens_BND: projected image tokens, one image per sample; not used for a sample without -200.
        regions: per sample the tokens of its regions in order of appearance, None without regions.
        attention_mask_BL: True at real ids; None: no id is padding.
        labels_BL: labels of the ids; those of image and region positions become -100.

    Raises:
        PlaceholderMismatch: a sample has several image placeholders, one without an image, a region placeholder before
            it, or a number of `<mask>` that is not that of its regions.
    """
    # 1. Splice every sample without its padding.
    rows, label_rows = [], []
    for idx in range(token_ids_BL.shape[0]):
        keep = slice(None) if attention_mask_BL is None else attention_mask_BL[idx].bool()
        sample = _Sample(
            idx,
            token_ids_BL[idx][keep],
            labels_L=None if labels_BL is None else labels_BL[idx][keep],
            image_tokens_ND=None if image_tokens_BND is None else image_tokens_BND[idx],
            regions=None if regions is None else regions[idx],
        )
        row_TD, row_labels_T = _splice_one(sample, embed, mask_token_id)
        rows.append(row_TD)
        if row_labels_T is not None:
            label_rows.append(row_labels_T)
    # 2. Pad the results again; the attention mask comes from their lengths.
    lengths_B = torch.tensor([row.shape[0] for row in rows], device=token_ids_BL.device)
    is_image_BL = token_ids_BL == IMAGE_TOKEN_ID
    image_at_B = torch.where(is_image_BL.any(dim=1), is_image_BL.int().argmax(dim=1), -1)
    embeds_BTD = pad_sequence(rows, batch_first=True)
    positions_T = torch.arange(embeds_BTD.shape[1], device=token_ids_BL.device)
    return SplicedBatch(
        inputs_embeds_BTD=embeds_BTD,
        attention_mask_BT=positions_T[None] < lengths_B[:, None],
        labels_BT=pad_sequence(label_rows, batch_first=True, padding_value=IGNORE_INDEX) if label_rows else None,
        image_at_B=image_at_B,
        num_image_tokens=0 if image_tokens_BND is None else image_tokens_BND.shape[1],
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """One sample of a batch, without padding; see `splice`."""

    idx: int
    ids_L: Tensor
    labels_L: Tensor | None
    image_tokens_ND: Tensor | None
    regions: RegionTokens | None


def _splice_one(
    sample: _Sample, embed: Callable[[Tensor], Tensor], mask_token_id: int
) -> tuple[Tensor, Tensor | None]:
    """Return embeddings (T, D) and labels (T,) of one sample."""
    ids_L, labels_L, image_tokens_ND = sample.ids_L, sample.labels_L, sample.image_tokens_ND
    # 1. Check the placeholders.
    image_at = (ids_L == IMAGE_TOKEN_ID).nonzero().flatten().tolist()
    if len(image_at) > 1:
        raise PlaceholderMismatch(
            f"sample {sample.idx} has {len(image_at)} <image> placeholders; Osprey reads one image per prompt"
        )
    if image_at and image_tokens_ND is None:
        raise PlaceholderMismatch(f"sample {sample.idx} has an <image> placeholder but no image was given")
    mask_at = (ids_L == mask_token_id).nonzero().flatten()
    if len(mask_at) and (not image_at or int(mask_at[0]) < image_at[0]):
        raise PlaceholderMismatch(
            f"sample {sample.idx} has <mask> without an <image> before it; region placeholders come after the image"
        )
    # 2. Embed the text, with the regions at their placeholders. Region positions are not learned.
    try:
        embeds_LD = place_regions(ids_L, embed=embed, mask_token_id=mask_token_id, regions=sample.regions)
    except PlaceholderMismatch as error:
        raise PlaceholderMismatch(f"sample {sample.idx}: {error}") from error
    if labels_L is not None and len(mask_at):
        labels_L = labels_L.index_fill(0, torch.cat([mask_at, mask_at + 1]), IGNORE_INDEX)
    if not image_at or image_tokens_ND is None:
        return embeds_LD, labels_L
    # 3. Replace the image's id by the image tokens, which are not learned.
    at = image_at[0]
    row_TD = torch.cat([embeds_LD[:at], image_tokens_ND.to(embeds_LD.dtype), embeds_LD[at + 1 :]])
    if labels_L is not None:
        ignored_N = labels_L.new_full((image_tokens_ND.shape[0],), IGNORE_INDEX)
        labels_L = torch.cat([labels_L[:at], ignored_N, labels_L[at + 1 :]])
    return row_TD, labels_L  # (T, D), (T,)


def place_regions(
    ids_L: Tensor, *, embed: Callable[[Tensor], Tensor], mask_token_id: int, regions: RegionTokens | None
) -> Tensor:
    """Embed ids; the k-th `<mask>` and the id behind it become the k-th region's mask token and spatial token.

    Returns:
        Embeddings (L, D).

    Raises:
        PlaceholderMismatch: the numbers of placeholders and regions differ, or the last `<mask>` is the last id.
    """
    # 1. Find the placeholders and check their number.
    mask_at = (ids_L == mask_token_id).nonzero().flatten()
    num_regions = 0 if regions is None else regions.mask_tokens_RD.shape[0]
    if len(mask_at) != num_regions:
        raise PlaceholderMismatch(
            f"{len(mask_at)} <mask> placeholders but {num_regions} masks were given; "
            "write <mask><pos> once per mask, in the order of the masks"
        )
    if num_regions and int(mask_at[-1]) + 1 >= len(ids_L):
        raise PlaceholderMismatch("the prompt ends with <mask>; it needs <pos> behind it")
    region_at = torch.cat([mask_at, mask_at + 1])
    # 2. Embed the text. Placeholders are looked up as id 0, because -200 and the region ids are not in the table.
    embeds_LD = embed(ids_L.clamp_min(0).index_fill(0, region_at, 0))
    if regions is None or not num_regions:
        return embeds_LD
    # 3. Write all mask tokens, then all spatial tokens, over the placeholders.
    tokens_2RD = torch.cat([regions.mask_tokens_RD, regions.position_tokens_RD]).to(embeds_LD.dtype)
    return embeds_LD.index_copy(0, region_at, tokens_2RD)
