"""A complete checkpoint folder from published parts: what stages 1 and 2 start from.

A LLaMA or Vicuna folder gives decoder and tokenizer, CLIP's file of open_clip the tower, stage 1's
`mm_projector.bin` the projector (without one it is fresh, as stage 1 wants it). The mask extractor is always fresh.
Neighbour: `osprey_model/weights/checkpoint.py` reads the parts, each completely or not at all.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch
from torch import Tensor

from osprey_model.config import OspreyConfig
from osprey_model.inputs.tokenizer import JSON_FILE, TOKENIZER_FILES, OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.weight_names import check_complete
from osprey_model.weights.build import build_osprey
from osprey_model.weights.checkpoint import load_vision_tower, read_tensors, read_weights, save_checkpoint

_OURS = ("model.vision_tower.", "model.mm_projector.", "mask_extractor.")
_BEFORE_NAME = re.compile(r"^.*mm_projector\.")  # the released file has other prefixes


def assemble_start(
    llm: Path | str, clip: Path | str, out: Path | str, *, projector: Path | str | None = None, seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> OspreyForCausalLM:  # fmt: skip
    """Write the folder `osprey train --model` takes.

    Args:
        llm: folder with config.json, weights and tokenizer. The tower's sizes are Osprey-7b's unless its config.json
            has a sub-dict `osprey`.
        clip: open_clip's file (`open_clip_pytorch_model.bin` or safetensors); its text half is ignored.
        out: a new or empty folder.
        projector: stage 1's `mm_projector.bin`.
        seed: of the fresh weights.
        dtype: of the written weights; the mask extractor's are float32.

    Raises:
        FileExistsError: `out` is there and not empty.
        FileNotFoundError: a part is missing.
        CheckpointError: a part does not fit; the message names file and keys.
        ValueError: the tokenizer's vocabulary is not the decoder's.
    """
    llm, out = Path(llm), Path(out)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is there and not empty; name a new folder")
    config, tokenizer = OspreyConfig.from_file(llm), OspreyTokenizer.from_folder(llm)
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(f"the tokenizer of {llm} has {tokenizer.vocab_size} ids, the decoder {config.vocab_size} rows")
    torch.manual_seed(seed)
    model = build_osprey(config)
    _fill(model, read_weights(llm), prefix="", source=str(llm))
    load_vision_tower(model, clip)
    if projector is not None:
        tensors = {_BEFORE_NAME.sub("model.mm_projector.", k): v for k, v in read_tensors(Path(projector)).items()}
        _fill(model, tensors, prefix="model.mm_projector.", source=str(projector))
    model.to(dtype).keep_extractor_in_float32()
    save_checkpoint(model, out)
    tokenizer.save_json(out / JSON_FILE)
    for name in TOKENIZER_FILES:
        if (llm / name).is_file():
            shutil.copyfile(llm / name, out / name)
    return model


def _fill(model: OspreyForCausalLM, given: dict[str, Tensor], *, prefix: str, source: str) -> None:
    """The decoder (no prefix) or one of our modules, completely."""
    wanted = {
        name: value
        for name, value in model.state_dict().items()
        if (name.startswith(prefix) if prefix else not name.startswith(_OURS))
    }
    check_complete(wanted, given, source=source)
    model.load_state_dict(given, strict=False)  # complete for its part: checked above
