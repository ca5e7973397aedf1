"""The configuration of an Osprey model: all sizes, two presets, and JSON in the reference's layout. Without torch.

`OspreyConfig.from_dict` reads three layouts:

- the config.json of a released checkpoint. Image size, mask size and tower are literals in the released code, so their
  released values apply;
- our own config.json: the same keys, plus a sub-dict `osprey` for those literals;
- the config of the golden vectors in the tests, whose sub-dict is called `golden`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE_TOKEN_ID = -200  # one id that stands for all image tokens of one image in input_ids
IGNORE_INDEX = -100  # label of a position that does not count in the loss
LEVELS = ("res2", "res3", "res4", "res5")  # the tower's four stage outputs, strides 4, 8, 16, 32
IMAGE_LEVEL = "res4"  # the level whose cells become the image tokens
CONFIG_FILE = "config.json"

_MODEL_TYPES = ("osprey", "osprey-stage2")  # the values in released config.json files
_LITERALS = "osprey"  # sub-dict for the sizes that are literals in the released code
_LITERALS_GOLDEN = "golden"


class WrongArchitecture(ValueError):
    """A config.json is not that of an Osprey model, or it cannot be read."""


@dataclass(frozen=True, slots=True)
class OspreyConfig:
    """Sizes of the tower, the mask extractor and the decoder. The defaults are those of the released Osprey-7b."""

    # ConvNeXt tower
    image_size: int = 512
    vision_depths: tuple[int, ...] = (3, 3, 27, 3)
    vision_dims: tuple[int, ...] = (192, 384, 768, 1536)
    vision_layer_scale_init: float = 1e-6
    vision_clip_embed_dim: int | None = 768  # None: without CLIP's head, which Osprey does not run
    # mask extractor
    mask_embed_dim: int = 1024
    mask_shape: int = 112
    # decoder
    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    initializer_range: float = 0.02
    pad_token_id: int = 0
    bos_token_id: int = 1
    eos_token_id: int = 2
    mask_token_id: int | None = None  # None: vocab_size, the first id behind the embedding table
    pos_token_id: int | None = None  # None: vocab_size + 1

    def __post_init__(self) -> None:
        """Check that the sizes fit together.

        Raises:
            ValueError: they do not; the message names them.
        """
        if len(self.vision_depths) != len(LEVELS) or len(self.vision_dims) != len(LEVELS):
            raise ValueError(
                f"the tower has {len(LEVELS)} stages; got depths {self.vision_depths} and dims {self.vision_dims}"
            )
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32 (the last stage's stride), got {self.image_size}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        if self.mask_token_id is None:
            object.__setattr__(self, "mask_token_id", self.vocab_size)
        if self.pos_token_id is None:
            object.__setattr__(self, "pos_token_id", self.vocab_size + 1)

    @property
    def num_image_tokens(self) -> int:
        """Number of image tokens: the cells of the res4 grid, 1024 for an image of 512x512."""
        return (self.image_size // 16) ** 2

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> OspreyConfig:
        """Read any of the three layouts. Keys that the model does not need (training switches, paths) are ignored.

        Raises:
            WrongArchitecture: the config is of another architecture.
            ValueError: the sizes do not fit together.
        """
        if data.get("model_type", _MODEL_TYPES[0]) not in _MODEL_TYPES:
            raise WrongArchitecture(
                f"expected a config of model_type {' or '.join(_MODEL_TYPES)}, got {data['model_type']!r} "
                f"({data.get('architectures', 'no architectures named')}); name the folder of an Osprey checkpoint"
            )
        projector = data.get("mm_projector_type", "mlp2x_gelu")
        if "hidden_size" not in data or "num_hidden_layers" not in data:
            raise WrongArchitecture(
                "not an Osprey config: expected LLaMA keys such as hidden_size and num_hidden_layers, "
                f"got {sorted(data)}"
            )
        if projector != "mlp2x_gelu":
            raise WrongArchitecture(
                f"mm_projector_type {projector!r} is not supported; Osprey checkpoints have 'mlp2x_gelu'"
            )
        merged = {**data, **data.get(_LITERALS_GOLDEN, {}), **(data.get(_LITERALS) or {})}
        rope = data.get("rope_parameters")
        if rope and "rope_theta" not in data:  # transformers 5 writes it nested
            merged["rope_theta"] = rope["rope_theta"]
        if merged.get("num_key_value_heads") is None:
            merged["num_key_value_heads"] = merged["num_attention_heads"]
        names = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in merged.items() if key in names}
        for key in ("vision_depths", "vision_dims"):
            if key in values:
                values[key] = tuple(values[key])
        return cls(**values)

    @classmethod
    def from_file(cls, folder: Path | str) -> OspreyConfig:
        """Read `config.json` of a checkpoint folder.

        Raises:
            FileNotFoundError: the folder has no config.json.
            WrongArchitecture: the config is damaged or of another architecture.
        """
        path = Path(folder) / CONFIG_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; a checkpoint folder holds {CONFIG_FILE} and its weights "
                "(osprey models pull fetches the released ones)"
            )
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise WrongArchitecture(f"{path} is not JSON: {error}; fetch it again") from error
        if not isinstance(data, dict):
            raise WrongArchitecture(f"{path} holds {type(data).__name__}, expected a JSON object; fetch it again")
        return cls.from_dict(data)

    @classmethod
    def preset(cls, name: str) -> OspreyConfig:
        """Return the preset of this name.

        Raises:
            ValueError: the name is unknown; the message lists the known ones.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; known: {', '.join(sorted(PRESETS))}")
        return PRESETS[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the config in the reference's config.json layout, plus the sub-dict `osprey` for its literals."""
        literals = (
            "image_size",
            "vision_depths",
            "vision_dims",
            "vision_layer_scale_init",
            "vision_clip_embed_dim",
            "mask_embed_dim",
            "mask_shape",
            "mask_token_id",
            "pos_token_id",
        )
        values = dataclasses.asdict(self)
        nested = {key: list(value) if isinstance(value := values.pop(key), tuple) else value for key in literals}
        return {
            "architectures": ["OspreyForCausalLM"],
            "model_type": "osprey",
            **values,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "mm_projector_type": "mlp2x_gelu",
            "mm_hidden_size": self.vision_dims[LEVELS.index(IMAGE_LEVEL)],
            "use_mm_proj": True,
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            _LITERALS: nested,
        }


PRESETS: dict[str, OspreyConfig] = {
    "osprey-7b": OspreyConfig(),
    "osprey-nano": OspreyConfig(
        image_size=256,
        vision_depths=(2, 2, 6, 2),
        vision_dims=(40, 80, 160, 320),
        vision_layer_scale_init=0.2,  # trained from scratch: with 1e-6 the blocks would have no effect for epochs
        vision_clip_embed_dim=None,
        mask_embed_dim=256,
        mask_shape=56,
        vocab_size=1024,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
    ),
}
