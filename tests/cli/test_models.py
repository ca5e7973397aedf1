"""`osprey models`: pulled from a local hub, converted to safetensors, every failure a sentence and exit code 1."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from cli.main import app
from registry.official_models import NAMES, SAM_FILES
from tests.support.fake_hub import FakeHub, serving

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "osprey_tiny_a"
REPOSITORY = "sunshine-lwt/Osprey-7b"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden tiny model in the layout of a released checkpoint: two .bin shards in bf16, tokenizer.model."""
    folder = tmp_path_factory.mktemp("released")
    state = {name: tensor.bfloat16() for name, tensor in load_file(GOLDEN / "model.safetensors").items()}
    shards = {name: f"pytorch_model-0000{idx % 2 + 1}-of-00002.bin" for idx, name in enumerate(sorted(state))}
    for shard in set(shards.values()):
        torch.save({name: tensor for name, tensor in state.items() if shards[name] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    shutil.copyfile(GOLDEN / "config.json", folder / "config.json")
    (folder / "generation_config.json").write_text("{}")
    shutil.copyfile(next(GOLDEN.rglob("tokenizer.model")), folder / "tokenizer.model")
    return folder


@pytest.fixture
def hub(released: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with the tiny model, which the environment points at."""
    files = {path.name: path.read_bytes() for path in released.iterdir()} | {"README.md": b"not needed"}
    with serving(FakeHub(repositories={REPOSITORY: files})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("OSPREY_SAM_MIRROR", running.url + "/sam/")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield running


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *map(str, arguments)])
    return result.exit_code, result.output


def test_pulled_through_redirects_and_a_drop_then_converted_it_loads(hub, released, tmp_path):
    """Every needed file arrives as it is; the converted folder holds the same bf16 weights and loads."""
    from osprey_model.inputs.tokenizer import OspreyTokenizer
    from osprey_model.weights.build import load_osprey
    from osprey_model.weights.checkpoint import read_weights

    shard = "pytorch_model-00001-of-00002.bin"
    hub.drops[shard] = [1000]
    code, output = run("pull", "osprey-7b", "--to", tmp_path)
    assert code == 0, output
    folder = tmp_path / "Osprey-7b"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in released.iterdir()
    }
    assert hub.ranges(shard) == [None, "bytes=1000-"]

    code, output = run("convert", folder, tmp_path / "converted")
    assert code == 0, output
    written, read = load_file(tmp_path / "converted" / "model.safetensors"), read_weights(released)
    assert written.keys() == read.keys()
    assert all(written[name].dtype == torch.bfloat16 and torch.equal(written[name], read[name]) for name in read)
    load_osprey(tmp_path / "converted")
    text = "What is the category of <mask><pos>?"
    tokenizers = [OspreyTokenizer.from_folder(path) for path in (released, tmp_path / "converted")]
    assert tokenizers[0].encode(text) == tokenizers[1].encode(text)
    assert (tmp_path / "converted" / "generation_config.json").is_file()


def test_a_second_pull_asks_for_the_listing_only(hub, tmp_path):
    """What is there and right is not fetched again."""
    assert run("pull", "osprey-7b", "--to", tmp_path)[0] == 0
    hub.requests.clear()
    assert run("pull", "osprey-7b", "--to", tmp_path)[0] == 0
    assert [path for path, _ in hub.requests] == [f"/api/models/{REPOSITORY}/revision/main"]


@pytest.mark.parametrize("name", ["config.json", "pytorch_model-00002-of-00002.bin"])
def test_content_that_is_not_what_the_hub_listed_is_refused(hub, tmp_path, name):
    """Git's blob id for small files, sha256 for large ones."""
    right = hub.repositories[REPOSITORY][name]
    hub.announced[name] = bytes(len(right))
    code, output = run("pull", "osprey-7b", "--to", tmp_path)
    assert code == 1
    assert "is damaged" in output
    assert not (tmp_path / "Osprey-7b" / name).exists()


def test_a_sam_is_checked_by_the_digits_in_its_name(hub, tmp_path, monkeypatch):
    """The mirror is asked; content with another checksum gets no final name."""
    right = b"weights"
    name = f"sam_vit_b_{hashlib.sha256(right).hexdigest()[:6]}.pth"
    monkeypatch.setitem(SAM_FILES, "sam-vit-b", name)
    hub.sam[name] = right
    code, output = run("pull", "sam-vit-b", "--to", tmp_path)
    assert code == 0, output
    assert (tmp_path / name).read_bytes() == right
    hub.sam[SAM_FILES["sam-vit-h"]] = b"something else"
    code, output = run("pull", "sam-vit-h", "--to", tmp_path)
    assert code == 1
    assert "4b8939" in output
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_name_lists_the_known_ones(hub, tmp_path):
    """And nothing is asked of anybody."""
    code, output = run("pull", "osprey-9b", "--to", tmp_path)
    assert code == 1
    assert all(name in output for name in NAMES)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HF_HUB_OFFLINE", "1", "HF_HUB_OFFLINE is set"),
        ("HF_ENDPOINT", "http://127.0.0.1:9", "Offline?"),
        ("HF_ENDPOINT", "mirror.example", "expected an address"),
    ],
)
def test_offline_and_a_wrong_mirror_say_so(hub, tmp_path, monkeypatch, variable, value, said):
    """A sentence, no traceback, nothing written."""
    monkeypatch.setenv(variable, value)
    code, output = run("pull", "osprey-7b", "--to", tmp_path)
    assert code == 1
    assert said in output
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_that_lists_files_outside_the_folder_is_refused(hub, tmp_path):
    """A listing is data of others."""
    hub.repositories[REPOSITORY]["../stray.json"] = b"{}"
    code, output = run("pull", "osprey-7b", "--to", tmp_path / "checkpoints")
    assert code == 1
    assert "outside the checkpoint's folder" in output
    assert list(tmp_path.iterdir()) == []


def test_convert_names_what_does_not_fit_and_leaves_nothing(released, tmp_path):
    """A missing tensor, a missing shard, a target in use."""
    broken = shutil.copytree(released, tmp_path / "broken")
    shard = broken / "pytorch_model-00001-of-00002.bin"
    state = torch.load(shard, weights_only=True)
    lost = sorted(name for name in state if name.startswith("mask_extractor."))[0]
    del state[lost]
    torch.save(state, shard)
    code, output = run("convert", broken, tmp_path / "out")
    assert code == 1
    assert lost in output
    shard.unlink()
    code, output = run("convert", broken, tmp_path / "out")
    assert code == 1
    assert shard.name in output
    code, output = run("convert", released, broken)
    assert code == 1
    assert "is there already" in output
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
