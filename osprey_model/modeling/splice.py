"""Text, image and region embeddings put at their placeholders: token ids -> decoder input.

# B samples, L token ids, T = L - 1 + N positions of the spliced sequence, N image tokens, D width, R regions

The id -200 becomes the N image tokens. After it, the k-th `<mask>` becomes the k-th region's mask token and
the id behind it (whatever it is) the k-th spatial token. `<mask>` and `<pos>` have no row in the embedding
table, so they must never reach it.
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
    """The placeholders of a prompt and the images or masks given with it do not fit together."""


@dataclass(frozen=True, slots=True)
class SplicedBatch:
    """Decoder input, padded on the right; positions are plain 0..T-1."""

    inputs_embeds_BTD: Tensor
    attention_mask_BT: Tensor
    labels_BT: Tensor | None
    image_at_B: Tensor  # where each sample's image begins, -1 for none
    num_image_tokens: int = 0

    def spread(self, values_BL: Tensor) -> Tensor:
        """Values of the ids (B, L) for every position (B, T): an image's tokens all get its id's."""
        if not self.num_image_tokens:
            return values_BL
        num_positions = self.inputs_embeds_BTD.shape[1]
        places_T = torch.arange(num_positions, device=values_BL.device)
        image_at_B1 = self.image_at_B[:, None]
        behind_BT = places_T[None] - (self.num_image_tokens - 1)
        id_of_BT = torch.where(
            (image_at_B1 < 0) | (places_T[None] <= image_at_B1), places_T[None], behind_BT.maximum(image_at_B1)
        )
        return values_BL.gather(1, id_of_BT.clamp_max(values_BL.shape[1] - 1))

    def padded_left(self) -> tuple[Tensor, Tensor]:
        """Embeddings and attention mask with the padding in front, as generation wants it."""
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
        token_ids_BL: ids with -200 and the region ids in them, right padded.
        embed: the decoder's embedding table.
        mask_token_id: id of `<mask>`.
        image_tokens_BND: projected image tokens, one image per sample; a sample without -200 ignores its own.
        regions: per sample the tokens of its regions in order of appearance, None where it has none.
        attention_mask_BL: True at real ids; None: all are.
        labels_BL: next-token labels of the ids; image and region positions become -100.

    Raises:
        PlaceholderMismatch: other than one image placeholder for an image, or `<mask>` counts that differ.
    """
    rows, label_rows = [], []
    for idx in range(token_ids_BL.shape[0]):
        keep = slice(None) if attention_mask_BL is None else attention_mask_BL[idx].bool()
        labels_L = None if labels_BL is None else labels_BL[idx][keep]
        row_TD, row_labels_T = _splice_one(
            idx,
            token_ids_BL[idx][keep],
            embed,
            mask_token_id,
            None if image_tokens_BND is None else image_tokens_BND[idx],
            None if regions is None else regions[idx],
            labels_L,
        )
        rows.append(row_TD)
        if row_labels_T is not None:
            label_rows.append(row_labels_T)
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


def _splice_one(
    sample_idx: int,
    ids_L: Tensor,
    embed: Callable[[Tensor], Tensor],
    mask_token_id: int,
    image_tokens_ND: Tensor | None,
    regions: RegionTokens | None,
    labels_L: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    image_at = (ids_L == IMAGE_TOKEN_ID).nonzero().flatten().tolist()
    if len(image_at) > 1:
        raise PlaceholderMismatch(
            f"sample {sample_idx} has {len(image_at)} <image> placeholders; Osprey reads one image per prompt"
        )
    if image_at and image_tokens_ND is None:
        raise PlaceholderMismatch(f"sample {sample_idx} has an <image> placeholder but no image was given")
    mask_at = (ids_L == mask_token_id).nonzero().flatten()
    if len(mask_at) and (not image_at or int(mask_at[0]) < image_at[0]):
        raise PlaceholderMismatch(
            f"sample {sample_idx} has <mask> without an <image> before it; region placeholders come after the image"
        )
    try:
        embeds_LD = place_regions(ids_L, embed=embed, mask_token_id=mask_token_id, regions=regions)
    except PlaceholderMismatch as error:
        raise PlaceholderMismatch(f"sample {sample_idx}: {error}") from error
    if labels_L is not None and len(mask_at):
        labels_L = labels_L.index_fill(0, torch.cat([mask_at, mask_at + 1]), IGNORE_INDEX)
    if not image_at or image_tokens_ND is None:
        return embeds_LD, labels_L
    at = image_at[0]
    row_TD = torch.cat([embeds_LD[:at], image_tokens_ND.to(embeds_LD.dtype), embeds_LD[at + 1 :]])
    if labels_L is not None:
        ignored_N = labels_L.new_full((image_tokens_ND.shape[0],), IGNORE_INDEX)
        labels_L = torch.cat([labels_L[:at], ignored_N, labels_L[at + 1 :]])
    return row_TD, labels_L  # (T, D), (T,)


def place_regions(
    ids_L: Tensor, *, embed: Callable[[Tensor], Tensor], mask_token_id: int, regions: RegionTokens | None
) -> Tensor:
    """Embeddings (L, D) of ids in which the k-th `<mask>` and the id behind it become the k-th region's tokens.

    Raises:
        PlaceholderMismatch: the counts differ, or nothing stands behind the last `<mask>`.
    """
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
    # Neither -200 nor the region ids may reach the embedding table.
    embeds_LD = embed(ids_L.clamp_min(0).index_fill(0, region_at, 0))
    if regions is None or not num_regions:
        return embeds_LD
    tokens_2RD = torch.cat([regions.mask_tokens_RD, regions.position_tokens_RD]).to(embeds_LD.dtype)
    return embeds_LD.index_copy(0, region_at, tokens_2RD)
