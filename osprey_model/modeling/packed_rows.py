"""Several conversations about one image in one sequence: the prefix that they share once, then a row for each.

# B samples, T positions after the splice

A row attends to the shared prefix and to itself, and its positions begin right behind the prefix. So every token has
the same hidden state, and the loss the same value, as if each row were run alone. But system prompt, image tokens and
overview line (about 1070 of 1100 positions at full size) run through the decoder once.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARED_ROW = 0  # row id of the prefix; the rows behind it count from 1


def packed_positions(row_ids_BT: Tensor) -> Tensor:
    """Return position ids (B, T): the prefix counts from 0, every row from the prefix's length.

    Args:
        row_ids_BT: 0 in the prefix, then 1, 1, 2, 2, 2, ...; any other id behind the last row is padding.
    """
    # Where each run of equal ids begins, carried forward to all its positions.
    places_T = torch.arange(row_ids_BT.shape[1], device=row_ids_BT.device)
    begins_BT = torch.ones_like(row_ids_BT, dtype=torch.bool)
    begins_BT[:, 1:] = row_ids_BT[:, 1:] != row_ids_BT[:, :-1]
    start_BT = torch.where(begins_BT, places_T, 0).cummax(dim=1).values
    prefix_length_B1 = (row_ids_BT == SHARED_ROW).sum(dim=1, keepdim=True)
    return torch.where(row_ids_BT == SHARED_ROW, places_T, places_T - start_BT + prefix_length_B1)


def packed_attention(row_ids_BT: Tensor, attention_mask_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask to add to attention scores, (B, 1, T, T): 0 for visible keys, else the least value of `dtype`.

    A position sees itself, and earlier positions of its own row and of the prefix. Padding sees itself, because a
    softmax needs at least one key.
    """
    places_T = torch.arange(row_ids_BT.shape[1], device=row_ids_BT.device)
    same_row_BTT = row_ids_BT[:, :, None] == row_ids_BT[:, None, :]
    in_prefix_B1T = (row_ids_BT == SHARED_ROW)[:, None, :]
    earlier_TT = places_T[:, None] >= places_T[None, :]
    seen_BTT = (same_row_BTT | in_prefix_B1T) & earlier_TT & attention_mask_BT[:, None, :]
    seen_BTT |= torch.eye(len(places_T), dtype=torch.bool, device=row_ids_BT.device)
    least = torch.finfo(dtype).min
    return torch.zeros(seen_BTT.shape, dtype=dtype, device=row_ids_BT.device).masked_fill(~seen_BTT, least)[:, None]
