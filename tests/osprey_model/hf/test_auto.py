"""transformers' Auto classes on our folders and on released ones, in every precision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, AutoTokenizer, GenerationConfig

import osprey_model.auto  # noqa: F401 - registers
from bench.speed.released_checkpoint import write_released_config, write_released_tokenizer, write_released_weights
from osprey_model.config import OspreyConfig
from osprey_model.engine.engine import Osprey
from osprey_model.hf.processor import OspreyProcessor
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.modeling.weight_names import CheckpointError
from osprey_model.weights.build import load_osprey
from osprey_model.weights.checkpoint import save_checkpoint

NANO = Path(__file__).parents[3] / "demo" / "checkpoints" / "osprey-nano"
TEXT = "What is the category of <mask><pos>? Using only one word.</s>USER: Zürich\n"
MASK = np.pad(np.ones((30, 40), bool), 20)
IMAGE = np.random.default_rng(0).integers(0, 256, (*MASK.shape, 3), dtype=np.uint8)
# A released config.json does not hold the sizes of tower and extractor: here they are the full ones.
SMALL_DECODER = OspreyConfig(
    vocab_size=1100, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=2048,
)  # fmt: skip


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the released layout, with a small decoder."""
    folder = tmp_path_factory.mktemp("released")
    write_released_config(folder, SMALL_DECODER)
    write_released_tokenizer(folder, SMALL_DECODER.vocab_size, NANO)
    write_released_weights(folder, SMALL_DECODER, num_shards=2)
    return folder


def logits_of(model: OspreyForCausalLM, processor: OspreyProcessor) -> torch.Tensor:
    with torch.inference_mode():
        return model(**processor(IMAGE, [MASK], "What is {region}?")).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saved_and_loaded_the_logits_are_the_same(dtype: torch.dtype, tmp_path: Path) -> None:
    """After save_pretrained and loading by the Auto classes, the logits with image and mask are equal in every bit."""
    model = AutoModelForCausalLM.from_pretrained(NANO, dtype=dtype)
    processor = AutoProcessor.from_pretrained(NANO)
    assert isinstance(model, OspreyForCausalLM)
    assert isinstance(processor, OspreyProcessor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    expected = logits_of(model, processor)
    assert expected.isfinite().all()
    assert torch.equal(logits_of(loaded, AutoProcessor.from_pretrained(tmp_path)), expected)
    assert {parameter.dtype for parameter in loaded.mask_extractor.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {dtype}
    # The engine reads what transformers wrote.
    ((answer,),) = Osprey.from_pretrained(tmp_path, dtype=dtype).describe(IMAGE, [MASK], ["What is {region}?"])
    ((before,),) = Osprey.from_pretrained(NANO, dtype=dtype).describe(IMAGE, [MASK], ["What is {region}?"])
    assert answer == before


def test_a_released_folder(released: Path, tmp_path: Path) -> None:
    """A folder with sharded .bin, rotary buffers and a LlamaTokenizer config loads as through our own loader."""
    processor = AutoProcessor.from_pretrained(released)
    model = AutoModelForCausalLM.from_pretrained(released, dtype=torch.float32)
    own = load_osprey(released)
    for name, value in own.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    torch.testing.assert_close(logits_of(model, processor), logits_of(own, processor), atol=1e-4, rtol=0)
    assert AutoTokenizer.from_pretrained(released)(TEXT)["input_ids"] == OspreyTokenizer.from_folder(released).encode(
        TEXT
    )
    config = json.loads((released / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "osprey-stage2"}))
    assert AutoConfig.from_pretrained(tmp_path).sizes() == SMALL_DECODER


@pytest.mark.parametrize("folder", ["nano", "golden"])
def test_the_auto_tokenizer_has_the_exact_ids(folder: str, golden_dir: Path, tmp_path: Path) -> None:
    """AutoTokenizer has the exact ids from tokenizer.model beside a LlamaTokenizer config, and after saving."""
    source = NANO if folder == "nano" else golden_dir / "tokenizer"
    exact = OspreyTokenizer.from_folder(source)
    (tmp_path / "config.json").write_text((NANO / "config.json").read_text())
    for path in source.glob("*token*"):
        if path.name != "tokenization.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(TEXT)["input_ids"] == exact.encode(TEXT)
    assert tokenizer.decode(exact.encode("a dog"), skip_special_tokens=True) == "a dog"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(TEXT)["input_ids"] == exact.encode(TEXT)


def test_the_generation_config_is_kept(released: Path, tmp_path: Path) -> None:
    """vicuna's generation config survives loading and saving; greedy decoding stays the default."""
    model = load_osprey(released)
    save_checkpoint(model, tmp_path)
    for kept in (model.generation_config, GenerationConfig.from_pretrained(tmp_path)):
        assert (kept.temperature, kept.top_p, kept.max_length) == (0.9, 0.6, 4096)
        assert not kept.do_sample


def test_transformers_loading_is_strict_too(tmp_path: Path) -> None:
    """A missing, an additional or a misshapen tensor raises an error that names it, not a warning."""
    model = AutoModelForCausalLM.from_pretrained(NANO)
    for change, said in (
        (lambda state: state.pop("mask_extractor.res2.bias"), "1 missing: mask_extractor.res2.bias"),
        (lambda state: state.update({"stray.weight": torch.zeros(1)}), "1 unexpected: stray.weight"),
        (lambda state: state.update({"lm_head.weight": torch.zeros(3, 3)}), "1 misshapen: .*lm_head.weight"),
    ):
        state = dict(model.state_dict())
        change(state)
        model.save_pretrained(tmp_path, state_dict=state)
        with pytest.raises(CheckpointError, match=said):
            AutoModelForCausalLM.from_pretrained(tmp_path)
