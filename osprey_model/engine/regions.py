"""Masks -> region tokens, a bounded number of pixels at a time. A mask is encoded once for all its questions.

# R masks of one resolution, H W their pixels
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from osprey_model.config import LEVELS
from osprey_model.engine.prefix import ImagePrefix
from osprey_model.engine.requests import AnswerWarning, RegionRequest, WarningKind
from osprey_model.inputs.masks import BadMask, as_mask
from osprey_model.modeling.mask_extractor import RegionTokens
from osprey_model.modeling.osprey import OspreyForCausalLM

_PIXELS_AT_ONCE = 1 << 24  # of float32 masks in one call of the extractor: 64 MiB
FINE_LEVELS = LEVELS[:2]
_REMEDY = "finer_mask_read=True reads it there"
_REGION_MESSAGES: dict[WarningKind, str] = {
    "vanished": "the region is too small or thin for the model: the answer is based on its position only",
    "coarse": "the region is too small or thin for the fine feature levels: the answer may be about its surroundings",
    "partly": "the region is too small or thin for some feature levels: the answer may miss what surrounds it",
}

MaskKey = tuple[int, int]  # region index, mask index


@dataclass(frozen=True, slots=True)
class EncodedRegion:
    """The tokens of one region, and warnings about how well its mask could be read."""

    tokens: RegionTokens
    warnings: tuple[AnswerWarning, ...]


class RegionReader:
    """Runs the mask extractor on the masks of requests."""

    def __init__(self, model: OspreyForCausalLM, device: torch.device, *, finer_mask_read: bool) -> None:
        self._model = model
        self._device = device
        self._finer_mask_read = finer_mask_read

    def read(
        self, prefix: ImagePrefix, regions: Sequence[RegionRequest], keys: Sequence[MaskKey]
    ) -> dict[MaskKey, EncodedRegion | BadMask]:
        """Encode the masks of `keys`; the result of a mask that cannot be read is its error."""
        masks = [regions[region_idx].masks[mask_idx] for region_idx, mask_idx in keys]
        names = [f"region {region_idx}, mask {mask_idx}" for region_idx, mask_idx in keys]
        return dict(zip(keys, self._read(prefix, masks, names), strict=True))

    def read_all(self, prefix: ImagePrefix, masks: Sequence[Any]) -> list[EncodedRegion]:
        """Encode the masks of a conversation.

        Raises:
            BadMask: a mask cannot be read; the message names it.
        """
        encoded = []
        for region in self._read(prefix, masks, [f"mask {idx}" for idx in range(len(masks))]):
            if isinstance(region, BadMask):
                raise region
            encoded.append(region)
        return encoded

    def _read(self, prefix: ImagePrefix, masks: Sequence[Any], names: Sequence[str]) -> list[EncodedRegion | BadMask]:
        found: dict[int, EncodedRegion | BadMask] = {}
        for group in self._groups(masks, names, found):
            masks_RHW = torch.stack([mask for _, mask in group]).to(self._device)
            together = self._model.extract_regions(prefix.levels, masks_RHW, finer_read=self._finer_mask_read)
            # One copy from the device for all masks, not one per warning.
            together = replace(
                together,
                covered_cells_RL=together.covered_cells_RL.cpu(),
                mask_pixels_R=together.mask_pixels_R.cpu(),
            )
            for idx, (key, _) in enumerate(group):
                tokens = together.one(idx)
                found[key] = EncodedRegion(tokens, region_warnings(tokens))
        return [found[idx] for idx in range(len(masks))]

    @staticmethod
    def _groups(
        masks: Sequence[Any], names: Sequence[str], failed: dict[int, EncodedRegion | BadMask]
    ) -> Iterator[list[tuple[int, Tensor]]]:
        """Group consecutive masks of one resolution, as many as may be read together; put errors into `failed`."""
        group: list[tuple[int, Tensor]] = []
        for idx, (mask, name) in enumerate(zip(masks, names, strict=True)):
            try:
                mask_HW = as_mask(mask)
            except BadMask as error:
                failed[idx] = type(error)(f"{name}: {error}")
                continue
            full = (len(group) + 1) * mask_HW.numel() > _PIXELS_AT_ONCE
            if group and (full or group[0][1].shape != mask_HW.shape):
                yield group
                group = []
            group.append((idx, mask_HW))
        if group:
            yield group


def region_warnings(region: RegionTokens) -> tuple[AnswerWarning, ...]:
    """Return a warning if the mask of a region (R = 1) covers no cell of some feature level."""
    cells = dict(zip(LEVELS, region.covered_cells_RL[0].tolist(), strict=True))
    lost = tuple(level for level in LEVELS if not cells[level])
    if not lost:
        return ()
    kind: WarningKind = "vanished" if len(lost) == len(LEVELS) else "coarse" if {*FINE_LEVELS} <= {*lost} else "partly"
    return (AnswerWarning(kind, f"{_REGION_MESSAGES[kind]} (lost at {', '.join(lost)}; {_REMEDY})", lost),)


def mask_warnings(regions: RegionTokens) -> tuple[AnswerWarning, ...]:
    """Return the region warnings of all masks of a conversation, each with its mask's index."""
    return tuple(
        replace(warning, mask_idx=idx, message=f"mask {idx}: {warning.message}")
        for idx in range(regions.mask_pixels_R.shape[0])
        for warning in region_warnings(regions.one(idx))
    )
