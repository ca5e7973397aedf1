"""Checkpoint folders: reading and writing weights under the reference's names, completely or not at all.

Reads `model.safetensors`, sharded safetensors, `pytorch_model.bin` and sharded `.bin` (the latter two with
`weights_only`, nothing is unpickled). Neighbours: `osprey_model/weights/build.py` makes the model these fill.
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
_MAPPED_BYTES = 1 << 30  # of a weight file that is in memory at a time while it is read
_TOWER_PREFIX = "model.vision_tower.vision_tower."


def read_weights(folder: Path | str) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder under our names, on the CPU.

    Raises:
        FileNotFoundError: no weights, or a shard of the index is missing.
        CheckpointError: a file that does not hold tensors only.
    """
    return dict(iter_weights(folder))


def read_shapes(folder: Path | str) -> dict[str, Tensor]:
    """The same on device "meta": names, shapes and dtypes, without reading the weights. Raises as `read_weights`."""
    return from_reference(
        {name: tensor.to("meta") for path in _weight_files(Path(folder)) for name, tensor in read_tensors(path).items()}
    )


def iter_weights(folder: Path | str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of `read_weights` one by one, mapped from their files, for whoever copies each and lets it go.

    A mapped file counts as memory as far as it was read, so it is mapped anew after every gigabyte.
    """
    for path in _weight_files(Path(folder)):
        for names in _groups(read_tensors(path)):
            tensors = read_tensors(path)
            yield from from_reference({name: tensors[name] for name in names}).items()


def _groups(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Names in the file's order, `_MAPPED_BYTES` at a time."""
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
    """One weight file, safetensors or `.bin`, names as they are.

    Raises:
        CheckpointError: the file is damaged or holds something else than tensors.
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


def load_weights(model: OspreyForCausalLM, state: Mapping[str, Tensor], *, source: str = "the checkpoint") -> None:
    """Fill every parameter of `model`; tensors are copied and keep the model's dtype and device.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys; the message names them.
    """
    check_complete(model.state_dict(), state, source=source)
    model.load_state_dict(dict(state), strict=True)


def load_vision_tower(model: OspreyForCausalLM, path: Path | str) -> None:
    """Fill the tower from a CLIP file of open_clip (`visual.*`; its text half is ignored).

    Raises:
        CheckpointError: the tower of the file and of the model differ.
    """
    tensors = read_tensors(Path(path))
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith(_TOWER_PREFIX)}
    given = {_TOWER_PREFIX + name: value for name, value in tensors.items() if name.startswith("visual.")}
    given = {name: value for name, value in from_reference(given).items() if name in wanted or ".head." not in name}
    check_complete(wanted, given, source=str(path))
    model.load_state_dict(given, strict=False)  # complete for the tower: checked above


def save_checkpoint(model: OspreyForCausalLM, folder: Path | str) -> None:
    """Write config.json, generation_config.json and model.safetensors; the tokenizer is saved by its own class."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config_json = json.dumps(model.sizes.to_dict(), indent=2)
    (folder / CONFIG_FILE).write_text(config_json + "\n", encoding="utf-8")
    # Not through save_pretrained: it refuses what released files hold (temperature without sampling).
    generation = json.dumps(model.generation_config.to_diff_dict(), indent=2)
    (folder / GENERATION_FILE).write_text(generation + "\n", encoding="utf-8")


def fingerprint(folder: Path | str) -> str:
    """40 hex digits of config and weights. Of files beyond 256 MB evenly spread blocks are read, not all bytes."""
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
    """File names of an index.

    Raises:
        CheckpointError: it does not say which tensor is in which file.
    """
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({str(shard) for shard in shards})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is no index of shards (expected weight_map: tensor -> file): {type(error).__name__} {error}; "
            "fetch it again"
        ) from error
