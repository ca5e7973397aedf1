"""Checkpoint folders: read and write weights under the reference's names, completely or not at all.

Readable are `model.safetensors`, sharded safetensors, `pytorch_model.bin` and sharded `.bin`. The `.bin` files are read
with `weights_only`, so no pickled code runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from osprey_model.config import CONFIG_FILE
from osprey_model.modeling.weight_names import CheckpointError, check_complete, from_reference

if TYPE_CHECKING:
    from osprey_model.modeling.osprey import OspreyForCausalLM

WEIGHTS_FILE = "model.safetensors"
GENERATION_FILE = "generation_config.json"
INDEX_FILE = "model.safetensors.index.json"
_SINGLE_FILES = (WEIGHTS_FILE, "pytorch_model.bin")
_INDEX_FILES = (INDEX_FILE, "pytorch_model.bin.index.json")

_BLOCK_BYTES, _MAX_BLOCKS = 1 << 20, 256
_MAPPED_BYTES = 1 << 30  # of a weight file that may be in memory while it is read
_TOWER_PREFIX = "model.vision_tower.vision_tower."


def read_weights(folder: Path | str) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint folder under our names, on the CPU.

    Raises:
        FileNotFoundError: the folder has no weights, or a shard of the index is missing.
        CheckpointError: a file is damaged or contains something else than tensors.
    """
    return dict(iter_weights(folder))


def read_shapes(folder: Path | str) -> dict[str, Tensor]:
    """Read names, shapes and dtypes only, as tensors on device "meta". Raises the errors of `read_weights`."""
    return from_reference(
        {name: tensor.to("meta") for path in _weight_files(Path(folder)) for name, tensor in read_tensors(path).items()}
    )


def iter_weights(folder: Path | str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of `read_weights` one by one, mapped from their files. The caller should copy and drop each.

    The part of a mapped file that has been read counts as memory, so the file is mapped again after every gigabyte.
    """
    for path in _weight_files(Path(folder)):
        for names in _groups(read_tensors(path)):
            tensors = read_tensors(path)
            yield from from_reference({name: tensors[name] for name in names}).items()


def _groups(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Split the names, in the file's order, into groups of about `_MAPPED_BYTES`."""
    groups: list[list[str]] = [[]]
    num_bytes = 0
    for name, tensor in tensors.items():
        if num_bytes > _MAPPED_BYTES:
            groups.append([])
            num_bytes = 0
        groups[-1].append(name)
        num_bytes += tensor.nbytes
    return groups


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read one weight file, safetensors or `.bin`, under the file's own names.

    Raises:
        CheckpointError: the file is damaged or contains something else than tensors.
    """
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else _read_bin(path)
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as tensors only: {error}; fetch it again or convert it"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path} does not hold a dict of tensors; expected a state dict")
    return loaded


def _read_bin(path: Path) -> dict[str, Tensor]:
    try:
        return cast(dict[str, Tensor], torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except RuntimeError:  # files written before torch 1.6 cannot be mapped
        return cast(dict[str, Tensor], torch.load(path, map_location="cpu", weights_only=True))


def load_vision_tower(model: OspreyForCausalLM, path: Path | str) -> None:
    """Load the tower from a CLIP file of open_clip: its `visual.*` tensors, without the text half.

    Raises:
        CheckpointError: the towers of the file and the model differ; the message names the tensors. The model is
            unchanged.
    """
    tensors = read_tensors(Path(path))
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith(_TOWER_PREFIX)}
    given = {_TOWER_PREFIX + name: value for name, value in tensors.items() if name.startswith("visual.")}
    given = {name: value for name, value in from_reference(given).items() if name in wanted or ".head." not in name}
    check_complete(wanted, given, source=str(path))
    model.load_state_dict(given, strict=False)  # complete for the tower, as checked above


def save_checkpoint(model: OspreyForCausalLM, folder: Path | str) -> None:
    """Write config.json, generation_config.json and model.safetensors. `OspreyTokenizer` saves the tokenizer."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config_json = json.dumps(model.sizes.to_dict(), indent=2)
    (folder / CONFIG_FILE).write_text(config_json + "\n", encoding="utf-8")
    # Not through save_pretrained, which refuses the values of released files (a temperature without sampling).
    generation = json.dumps(model.generation_config.to_diff_dict(), indent=2)
    (folder / GENERATION_FILE).write_text(generation + "\n", encoding="utf-8")


def fingerprint(folder: Path | str) -> str:
    """Return a hash of config and weights, 40 hex digits. Of files over 256 MB it reads evenly spread blocks only."""
    digest = hashlib.sha256((Path(folder) / CONFIG_FILE).read_bytes())
    for path in _weight_files(Path(folder)):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            starts = range(0, size, max(_BLOCK_BYTES, size // _MAX_BLOCKS))
            for start in starts:
                file.seek(start)
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()[:40]


def _weight_files(folder: Path) -> Iterator[Path]:
    for name in _SINGLE_FILES:
        if (folder / name).is_file():
            yield folder / name
            return
    for name in _INDEX_FILES:
        index = folder / name
        if index.is_file():
            for shard in _shards(index):
                if not (folder / shard).is_file():
                    raise FileNotFoundError(
                        f"{index} names the shard {shard}, which is not in {folder}; fetch it again"
                    )
                yield folder / shard
            return
    expected = ", ".join((*_SINGLE_FILES, *_INDEX_FILES))
    raise FileNotFoundError(f"no weights in {folder}; expected one of {expected}")


def _shards(index: Path) -> list[str]:
    """Return the file names in an index.

    Raises:
        CheckpointError: the index has no valid `weight_map`.
    """
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({str(shard) for shard in shards})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is not an index of shards (expected weight_map: tensor -> file): {type(error).__name__} {error}; "
            "fetch it again"
        ) from error
