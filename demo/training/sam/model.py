"""The small SAM: its sizes, its first weights, and the head that exists only in training.

The network itself is segment_anything's, built by `worker/sam/presets.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from segment_anything.modeling import MaskDecoder, Sam
from torch import Tensor, nn
from torch.func import functional_call

from demo.training.sam.data import PART_CLASSES
from worker.sam.presets import SamConfig, build_sam

# B images, C width of the embedding, h w cells of SAM's low resolution (4 per token and side)

NANO = SamConfig(
    name="sam-nano",
    encoder_dim=192,
    encoder_depth=6,
    encoder_heads=3,
    global_attention_blocks=(1, 4),
    image_size=256,
    patch_size=8,
    window_size=8,
    prompt_dim=128,
    decoder_heads=4,
    decoder_mlp_dim=256,
    iou_head_dim=128,
)
CELLS_PER_TOKEN = 4
_DENSE_CHANNELS = 7  # inside an object; object border; part border; offsets to object and part centre


def new_sam(config: SamConfig) -> Sam:
    """Build a SAM to train, with sine positions and small relative positions instead of zeros."""
    sam = build_sam(config)
    with torch.no_grad():
        sam.image_encoder.pos_embed.copy_(0.3 * _sine_positions(config.embedding_size, config.encoder_dim))
        for block in sam.image_encoder.blocks:
            nn.init.normal_(block.attn.rel_pos_h, std=0.05)
            nn.init.normal_(block.attn.rel_pos_w, std=0.05)
    return sam.train()


class HalfCopy:
    """The encoder and the mask decoder in bfloat16; the trained weights stay in float32.

    Most of the CPU's time goes into these two. Casting once per step instead of at every layer (autocast) saves a
    third of the decoder's time. The prompt encoder stays float32, because positions do not survive bfloat16.
    """

    def __init__(self, sam: Sam) -> None:
        self.encoder = copy.deepcopy(sam.image_encoder).bfloat16()
        self.decoder = copy.deepcopy(sam.mask_decoder).bfloat16()
        masters = [*sam.image_encoder.parameters(), *sam.mask_decoder.parameters()]
        copies = [*self.encoder.parameters(), *self.decoder.parameters()]
        self._pairs = list(zip(masters, copies, strict=True))

    def encode(self, pixels_B3HW: Tensor, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Encode pixels to embeddings (B, C, h, w), also crops that begin at token `origins` (row, column).

        On whole inputs this is `ImageEncoderViT.forward`. A crop gets the positions that it has in the whole input.
        """
        x = self.encoder.patch_embed(pixels_B3HW)  # (B, h, w, D)
        height, width = x.shape[1:3]
        positions = self.encoder.pos_embed
        x = x + torch.cat([positions[:, row : row + height, col : col + width] for row, col in origins])
        for block in self.encoder.blocks:
            if block.window_size:
                x = block(x)
            else:
                near = {
                    "attn.rel_pos_h": _middle(block.attn.rel_pos_h, height),
                    "attn.rel_pos_w": _middle(block.attn.rel_pos_w, width),
                }
                x = functional_call(block, near, (x,))
        embedding: Tensor = self.encoder.neck(x.permute(0, 3, 1, 2))
        return embedding

    @torch.no_grad()
    def pull_weights(self) -> None:
        """Copy the float32 weights, which the optimiser changes, into the bfloat16 copies."""
        for master, half in self._pairs:
            half.copy_(master)

    @torch.no_grad()
    def push_gradients(self) -> None:
        """Move the copies' gradients to the float32 weights."""
        for master, half in self._pairs:
            if half.grad is not None:
                master.grad = half.grad.float()
                half.grad = None


def decode_prompts(
    decoder: MaskDecoder, source: Tensor, positions_1CHW: Tensor, sparse_PNC: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute `MaskDecoder.predict_masks` for many prompts on one image, without copying the image per prompt.

    The numbers are the same. The decoder's attention broadcasts, so the first layer reads the image once for all
    prompts; a step takes a fifth less time.

    Args:
        decoder: SAM's mask decoder.
        source: image plus dense prompt embedding, (1, C, h, w), or (P, C, h, w) where masks are prompts.
        positions_1CHW: SAM's position code of the image's tokens.
        sparse_PNC: the tokens of P prompts.

    Returns:
        Logits (P, K, 4h, 4w) of all K mask tokens and their predicted IoUs (P, K).
    """
    outputs_KC = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([outputs_KC.expand(len(sparse_PNC), -1, -1), sparse_PNC], dim=1)
    answers, keys = decoder.transformer(source, positions_1CHW, tokens)
    image = decoder.output_upscaling(keys.transpose(1, 2).reshape(len(tokens), -1, *source.shape[-2:]))
    filters = torch.stack(
        [head(answers[:, 1 + idx]) for idx, head in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )
    logits = (filters @ image.flatten(2)).unflatten(2, image.shape[-2:])
    return logits, decoder.iou_prediction_head(answers[:, 0])


@dataclass(frozen=True, slots=True)
class DenseMaps:
    """Output of the auxiliary head: `cells` (B, 7, h, w) and part `classes` (B, 128, h/4, w/4)."""

    cells: Tensor
    classes: Tensor


class DenseHead(nn.Module):
    """Predicts objects, borders, centres and part names from the image embedding.

    It supervises the encoder at every cell, not only where a step's few prompts are. The checkpoint does not
    contain it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.Conv2d(width, _DENSE_CHANNELS * CELLS_PER_TOKEN**2, 1)
        self.shuffle = nn.PixelShuffle(CELLS_PER_TOKEN)
        self.classes = nn.Conv2d(width, PART_CLASSES, 1)

    def forward(self, embedding_BCHW: Tensor) -> DenseMaps:
        """Compute the dense maps of image embeddings."""
        return DenseMaps(self.shuffle(self.cells(embedding_BCHW)), self.classes(embedding_BCHW))


def _middle(table: Tensor, side: int) -> Tensor:
    """Return the rows of a relative position table for distances below `side`."""
    center = len(table) // 2
    return table[center - side + 1 : center + side]


def _sine_positions(side: int, dim: int) -> Tensor:
    """Make position codes (1, side, side, dim): half of the channels for the row, half for the column."""
    frequencies = torch.exp(-math.log(100.0) * torch.arange(dim // 4) / (dim // 4))
    angles = torch.arange(side)[:, None] * frequencies[None]
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, dim / 2)
    rows, columns = axis[:, None].expand(side, side, -1), axis[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1)[None]
