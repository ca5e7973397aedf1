"""A released checkpoint (sharded .bin) -> one folder with safetensors, config and tokenizer, read strictly.

The weights keep their dtype; names are ours (see `osprey_model/checkpoint.py`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from osprey_model.build import build_osprey
from osprey_model.checkpoint import WEIGHTS_FILE, check_complete, read_weights
from osprey_model.config import CONFIG_FILE, OspreyConfig
from osprey_model.tokenizer import JSON_FILE, SENTENCEPIECE_FILE, OspreyTokenizer

_GENERATION_FILE = "generation_config.json"


def convert_checkpoint(source: Path, target: Path) -> int:
    """Write `target`, which appears complete or not at all; gives the number of tensors.

    Raises:
        FileExistsError: `target` is there and not empty.
        FileNotFoundError: a file of `source` is missing.
        CheckpointError: the weights do not fit the config; the message names the keys.
        ValueError: the config is of another architecture.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there already; name a new or empty folder")
    config = OspreyConfig.from_file(source)
    tokenizer = OspreyTokenizer.from_folder(source)
    state = read_weights(source)
    check_complete(build_osprey(config, device="meta").state_dict(), state, source=str(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch) / "checkpoint"
        folder.mkdir()
        contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
        save_file(contiguous, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
        tokenizer.save_json(folder / JSON_FILE)
        for name in (SENTENCEPIECE_FILE, _GENERATION_FILE):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        if target.exists():
            target.rmdir()  # empty: checked above
        folder.replace(target)
    return len(state)
