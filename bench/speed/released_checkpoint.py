"""A checkpoint folder in the released layout: sharded bfloat16 `.bin`, rotary buffers, no tokenizer.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

from osprey_model.config import OspreyConfig
from osprey_model.modeling.weight_names import to_reference
from osprey_model.weights.build import build_osprey

# The released config.json's keys besides LLaMA's. It has no sizes of tower and mask extractor.
RELEASED_KEYS = {
    "architectures": ["OspreyLlamaForCausalLM"],
    "model_type": "osprey",
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "mm_vision_tower": "./convnext_large_d_320/open_clip_pytorch_model.bin",
    "mm_projector_type": "mlp2x_gelu",
    "use_mm_proj": True,
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "image_aspect_ratio": "pad",
    "tune_mm_mlp_adapter": False,
    "freeze_mm_mlp_adapter": False,
    "image_grid_pinpoints": None,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.31.0",
}
LLAMA_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "rms_norm_eps", "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip
TOKENIZER_FILES = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")


def write_released_weights(folder: Path, config: OspreyConfig, num_shards: int, *, seed: int = 0) -> None:
    """Write random weights with about the magnitude of trained ones, one shard in memory at a time.

    Layer scale, norms and biases have their usual means, so that activations stay finite.
    """
    meta = to_reference(build_osprey(config, device="meta").state_dict(), config)
    names = list(meta)
    total = sum(meta[name].numel() for name in names)
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    done = 0

    def write() -> None:
        file = f"pytorch_model-{len(set(weight_map.values())) + 1:05d}-of-{num_shards:05d}.bin"
        torch.save(shard, folder / file)
        weight_map.update(dict.fromkeys(shard, file))
        shard.clear()

    for name in names:
        shard[name] = _random_like(name, meta[name], config, generator)
        done += meta[name].numel()
        if done >= total * (len(set(weight_map.values())) + 1) / num_shards and name != names[-1]:
            write()
    write()
    index = {"metadata": {"total_size": 2 * total}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2))


def write_released_config(folder: Path, config: OspreyConfig) -> None:
    """Write config.json with the released keys, and vicuna's generation_config.json."""
    values = {key: getattr(config, key) for key in LLAMA_KEYS}
    (folder / "config.json").write_text(json.dumps({**values, **RELEASED_KEYS}, indent=2))
    generation = {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_length": 4096,
        "pad_token_id": 0,
        "temperature": 0.9,
        "top_p": 0.6,
    }
    (folder / "generation_config.json").write_text(json.dumps({**generation, "transformers_version": "4.31.0"}))


def write_released_tokenizer(folder: Path, vocab_size: int, like: Path) -> None:
    """Write a tokenizer.model of `vocab_size` pieces, padded with unused ones, and its three JSON files."""
    from sentencepiece import sentencepiece_model_pb2 as sentencepiece

    model = sentencepiece.ModelProto()
    model.ParseFromString((like / "tokenizer.model").read_bytes())
    lowest = min(piece.score for piece in model.pieces)
    for idx in range(len(model.pieces), vocab_size):
        model.pieces.add(piece=f"\u2581filler{idx}", score=lowest - 1 - idx, type=1)
    model.trainer_spec.vocab_size = vocab_size
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    for name in TOKENIZER_FILES:
        shutil.copyfile(like / name, folder / name)
    (folder / "added_tokens.json").write_text(json.dumps({"<mask>": vocab_size, "<pos>": vocab_size + 1}))


def _random_like(name: str, meta: Tensor, config: OspreyConfig, generator: torch.Generator) -> Tensor:
    if name.endswith("inv_freq"):
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
        return 1.0 / (config.rope_theta ** (steps / config.head_dim))
    values = torch.empty(meta.shape, dtype=torch.bfloat16)
    if name.endswith(".gamma"):
        return values.fill_(0.1)
    if name.endswith("bias"):
        return values.zero_()
    if meta.ndim == 1:  # norms
        return values.fill_(1.0)
    return values.normal_(std=min(config.initializer_range, meta[0].numel() ** -0.5), generator=generator)
