"""Write a trained model as a checkpoint folder that `Osprey.from_pretrained` reads, in float16."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch

from osprey_model.inputs.tokenizer import JSON_FILE, SENTENCEPIECE_FILE, OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.weights.checkpoint import save_checkpoint

_TOKENIZER_FILES = (SENTENCEPIECE_FILE, "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")


def export(model: OspreyForCausalLM, tokenizer: OspreyTokenizer, tokenizer_folder: Path, out: Path) -> None:
    """Write weights, config, tokenizer and generation settings into `out`; keep a README.md that is there.

    Raises:
        ValueError: a weight does not fit into float16.
    """
    state = model.state_dict()
    too_large = [name for name, value in state.items() if value.abs().max() > torch.finfo(torch.float16).max]
    if too_large:
        raise ValueError(f"{len(too_large)} tensors do not fit into float16, for example {too_large[:3]}; keep float32")
    save_checkpoint(copy.deepcopy(model).to(torch.float16), out)
    for name in _TOKENIZER_FILES:
        shutil.copyfile(tokenizer_folder / name, out / name)
    tokenizer.save_json(out / JSON_FILE)
    generation = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "do_sample": False,
    }
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
