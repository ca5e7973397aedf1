"""Build segment_anything's own classes from a config and load their weights strictly.

A checkpoint is a folder (`config.json` and `model.safetensors`, our small SAM) or an official `.pth`, whose size
follows from its weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from job_queue.errors import ModelUnavailable

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
_HASH_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class SamConfig:
    """All sizes of a SAM. The defaults are those of the three official models."""

    name: str
    encoder_dim: int
    encoder_depth: int
    encoder_heads: int
    global_attention_blocks: tuple[int, ...]  # the other blocks attend within windows
    image_size: int = 1024  # px, side of the encoder's padded square
    patch_size: int = 16
    window_size: int = 14  # tokens
    mlp_ratio: float = 4.0
    prompt_dim: int = 256
    mask_input_channels: int = 16
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_head_depth: int = 3
    iou_head_dim: int = 256
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @property
    def embedding_size(self) -> int:
        """Side of the square image embedding, in tokens."""
        return self.image_size // self.patch_size

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for `config.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SamConfig:
        """Read the dict of `to_json`.

        Raises:
            ValueError: a key is missing or unknown.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
        unknown, missing = set(data) - set(fields), required - set(data)
        if unknown or missing:
            raise ValueError(f"a SAM config has unknown keys {sorted(unknown)} and lacks {sorted(missing)}")
        sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**sizes)


PRESETS = {
    "vit_b": SamConfig("vit_b", 768, 12, 12, (2, 5, 8, 11)),
    "vit_l": SamConfig("vit_l", 1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": SamConfig("vit_h", 1280, 32, 16, (7, 15, 23, 31)),
}


def build_sam(config: SamConfig) -> Sam:
    """Build a SAM of `config`'s sizes with random weights, in eval mode."""
    side = config.embedding_size
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.encoder_dim,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            mlp_ratio=config.mlp_ratio,
            out_chans=config.prompt_dim,
            qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=config.window_size,
            global_attn_indexes=config.global_attention_blocks,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=config.prompt_dim,
            image_embedding_size=(side, side),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_input_channels,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.prompt_dim,
                mlp_dim=config.decoder_mlp_dim,
                num_heads=config.decoder_heads,
            ),
            transformer_dim=config.prompt_dim,
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_dim,
        ),
        pixel_mean=list(config.pixel_mean),
        pixel_std=list(config.pixel_std),
    )
    return sam.eval()


def load_sam(path: Path) -> tuple[Sam, str]:
    """Load the SAM at `path` in float32 on the CPU; return it with its model version (name and content hash).

    Raises:
        ModelUnavailable: there is no usable checkpoint, or the weights do not fit the sizes exactly.
    """
    if path.is_dir():
        return _load_folder(path)
    if path.is_file():
        return _load_official(path)
    hint = f"; {path} is the name of a size, give the path of its official .pth" if str(path) in PRESETS else ""
    raise ModelUnavailable(
        f"no SAM checkpoint at {path}: expected a folder with {CONFIG_NAME} and {WEIGHTS_NAME}, "
        f"or an official .pth{hint}"
    )


def save_sam(sam: Sam, config: SamConfig, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `config.json` and `model.safetensors`, with weights as `dtype` (loading casts to float32)."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in sam.state_dict().items()}
    save_file(weights, folder / WEIGHTS_NAME)
    (folder / CONFIG_NAME).write_text(json.dumps(config.to_json(), indent=2) + "\n", encoding="utf-8")


def _load_folder(folder: Path) -> tuple[Sam, str]:
    config_path, weights_path = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    try:
        config = SamConfig.from_json(json.loads(config_path.read_text(encoding="utf-8")))
        weights = load_file(weights_path)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelUnavailable(f"the SAM checkpoint in {folder} cannot be read: {error}") from error
    return _filled(config, weights, weights_path), f"{config.name}-{_content_hash(config_path, weights_path)}"


def _load_official(path: Path) -> tuple[Sam, str]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelUnavailable(
            f"{path} is not a file of SAM weights that torch.load can read safely: {error}"
        ) from error
    position = weights.get("image_encoder.pos_embed") if isinstance(weights, dict) else None
    dim = position.shape[-1] if isinstance(position, torch.Tensor) else None
    config = next((preset for preset in PRESETS.values() if preset.encoder_dim == dim), None)
    if config is None:
        known = ", ".join(f"{preset.name} ({preset.encoder_dim})" for preset in PRESETS.values())
        raise ModelUnavailable(f"{path} is not an official SAM: its encoder width is {dim}, expected one of {known}")
    return _filled(config, weights, path), f"{config.name}-{_content_hash(path)}"


def _filled(config: SamConfig, weights: dict[str, torch.Tensor], source: Path) -> Sam:
    sam = build_sam(config)
    try:
        sam.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True)
    except RuntimeError as error:
        raise ModelUnavailable(
            f"the weights in {source} do not fit a SAM of config {config.name!r}: {error}"
        ) from error
    return sam


def _content_hash(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()[:10]
