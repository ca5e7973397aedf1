"""Assemble the checkpoint folder that stages 1 and 2 start from out of published parts.

Decoder and tokenizer come from a LLaMA or Vicuna folder, the tower from open_clip's file, and the projector from
`mm_projector.bin`, the result of stage 1. Without that file the projector gets new weights, which stage 1 then trains.
The mask extractor always gets new weights.
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
_BEFORE_NAME = re.compile(r"^.*mm_projector\.")  # in the released file other prefixes precede it


def assemble_start(
    llm: Path | str, clip: Path | str, out: Path | str, *, projector: Path | str | None = None, seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> OspreyForCausalLM:  # fmt: skip
    """Write a complete checkpoint folder, to start stage 1 or 2 from, and return its model.

    Args:
        llm: folder with config.json, weights and tokenizer. The tower has the sizes of Osprey-7b unless config.json
            has a sub-dict `osprey`.
        clip: open_clip's file (`open_clip_pytorch_model.bin` or safetensors). Its text encoder is ignored.
        out: a new or empty folder.
        projector: the `mm_projector.bin` of stage 1; None: new weights.
        seed: seed of the new weights.
        dtype: dtype of the written weights, except for the mask extractor, which is always float32.

    Raises:
        FileExistsError: `out` exists and is not empty.
        FileNotFoundError: a part is missing.
        CheckpointError: a part does not fit the config; the message names file and keys.
        ValueError: tokenizer and decoder have vocabularies of different sizes.
    """
    llm, out = Path(llm), Path(out)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} exists and is not empty; name a new folder")
    config, tokenizer = OspreyConfig.from_file(llm), OspreyTokenizer.from_folder(llm)
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"the tokenizer of {llm} has {tokenizer.vocab_size} ids, but the decoder has {config.vocab_size} rows; "
            "use the tokenizer that belongs to the decoder"
        )
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
    """Load all weights of the decoder (empty prefix), or all weights under a prefix.

    Raises:
        CheckpointError: a weight is missing, unexpected or of another shape.
    """
    wanted = {
        name: value
        for name, value in model.state_dict().items()
        if (name.startswith(prefix) if prefix else not name.startswith(_OURS))
    }
    check_complete(wanted, given, source=source)
    model.load_state_dict(given, strict=False)  # not strict: the other parts are not in `given`
