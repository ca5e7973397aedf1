"""Bad checkpoint folders given to `Osprey.from_pretrained` raise a named error that states the problem and a remedy.

Masks, images, questions and conversations: `engine/test_engine.py`, `engine/test_chat.py`, `test_processor.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from osprey_model import Osprey
from osprey_model.config import WrongArchitecture
from osprey_model.inputs.tokenizer import TokenizerError
from osprey_model.modeling.weight_names import CheckpointError

NANO = Path(__file__).parents[2] / "demo" / "checkpoints" / "osprey-nano"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of nano that a test may damage."""
    return Path(shutil.copytree(NANO, tmp_path / "nano"))


def change_config(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**data, **values}))

    return change


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names]  # type: ignore[return-value]


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (shutil.rmtree, FileNotFoundError, r"nano/config\.json does not exist; .*osprey models pull"),
        (change_config(model_type="llava"), WrongArchitecture, "expected a config of model_type osprey .* got 'llava'"),
        (change_config(mm_projector_type="linear"), WrongArchitecture, "'linear' is not supported"),
        (write("config.json", b"{"), WrongArchitecture, r"config\.json is not JSON"),
        (write("config.json", b"[]"), WrongArchitecture, "holds list, expected a JSON object"),
        (write("config.json", b"{}"), WrongArchitecture, "not an Osprey config: expected LLaMA keys"),
        (change_config(num_hidden_layers=5), CheckpointError, r"missing: model\.layers\.4\."),
        (change_config(hidden_size=188), CheckpointError, r"misshapen: .*\(expected .*188.*got .*192"),
        (remove("model.safetensors"), FileNotFoundError, r"no weights in .*expected one of model\.safetensors"),
        (write("model.safetensors", b"weights"), CheckpointError, r"model\.safetensors cannot be read"),
        (remove("tokenizer.model", "tokenizer.json"), FileNotFoundError, "no tokenizer in .*take the checkpoint's"),
        (write("tokenizer.model", b"pieces"), TokenizerError, r"tokenizer\.model is not a SentencePiece model"),
    ],
)
def test_a_folder_that_is_no_checkpoint(
    damage: Callable[[Path], None], error: type[Exception], said: str, folder: Path
) -> None:
    """A folder that is missing, damaged or of another architecture raises a named error."""
    damage(folder)
    with pytest.raises(error, match=said):
        Osprey.from_pretrained(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index(content: str, folder: Path) -> None:
    """An index without a weight map raises an error that describes what was expected."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json is not an index of shards"):
        Osprey.from_pretrained(folder)


def test_a_damaged_tokenizer_json(folder: Path) -> None:
    """A damaged tokenizer.json raises an error if there is no other tokenizer file."""
    (folder / "tokenizer.model").unlink()
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is not a tokenizer\.json"):
        Osprey.from_pretrained(folder)


def test_a_tokenizer_of_another_checkpoint(folder: Path, golden_dir: Path) -> None:
    """A tokenizer whose number of ids is not that of the embedding table raises an error."""
    shutil.copy(golden_dir / "tokenizer" / "tokenizer.model", folder)
    with pytest.raises(ValueError, match="tokenizer has 560 ids but the model's embedding table has 1024 rows"):
        Osprey.from_pretrained(folder)
