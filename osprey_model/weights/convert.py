"""Convert a released checkpoint (sharded .bin) to a folder with safetensors, config and tokenizer, checked strictly.

The weights keep their dtype and get our names (see `weight_names.py`). One shard is in memory at a time; a model of
more than one shard gets transformers' index file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from osprey_model.config import CONFIG_FILE, OspreyConfig
from osprey_model.inputs.tokenizer import JSON_FILE, SENTENCEPIECE_FILE, OspreyTokenizer
from osprey_model.modeling.weight_names import check_complete
from osprey_model.weights.build import build_osprey
from osprey_model.weights.checkpoint import GENERATION_FILE, INDEX_FILE, WEIGHTS_FILE, iter_weights, read_shapes

_SHARD_BYTES = 2 << 30


def convert_checkpoint(source: Path, target: Path) -> int:
    """Write the folder `target`, completely or not at all; return the number of tensors.

    Raises:
        FileExistsError: `target` exists and is not empty.
        FileNotFoundError: a file of `source` is missing.
        CheckpointError: the weights do not fit the config; the message names the keys.
        ValueError: the config is of another architecture.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there already; name a new or empty folder")
    config = OspreyConfig.from_file(source)
    tokenizer = OspreyTokenizer.from_folder(source)
    shapes = read_shapes(source)
    check_complete(build_osprey(config, device="meta").state_dict(), shapes, source=str(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        folder = Path(scratch) / "checkpoint"
        folder.mkdir()
        _write_weights(source, folder, shapes)
        (folder / CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
        tokenizer.save_json(folder / JSON_FILE)
        for name in (SENTENCEPIECE_FILE, GENERATION_FILE):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        if target.exists():
            target.rmdir()  # empty, as checked above
        folder.replace(target)
    return len(shapes)


def _write_weights(source: Path, folder: Path, shapes: Mapping[str, Tensor]) -> None:
    """Write one file, or several shards in the source's order with their index."""
    total_bytes = sum(tensor.nbytes for tensor in shapes.values())
    shard: dict[str, Tensor] = {}
    written: list[list[str]] = []
    num_bytes = 0

    def write() -> None:
        save_file(shard, folder / str(len(written)), metadata={"format": "pt"})
        written.append(list(shard))
        shard.clear()

    for name, tensor in iter_weights(source):
        if shard and num_bytes + tensor.nbytes > _SHARD_BYTES:
            write()
            num_bytes = 0
        shard[name] = tensor.clone(memory_format=torch.contiguous_format)
        num_bytes += tensor.nbytes
    write()
    if len(written) == 1:
        (folder / "0").replace(folder / WEIGHTS_FILE)
        return
    files = [f"model-{idx + 1:05d}-of-{len(written):05d}.safetensors" for idx in range(len(written))]
    for idx, file in enumerate(files):
        (folder / str(idx)).replace(folder / file)
    weight_map = {name: file for file, names in zip(files, written, strict=True) for name in names}
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
