"""Loading in 4 and 8 bit with bitsandbytes (its CPU backend is enough), and the error without it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from osprey_model.engine.engine import Osprey
from osprey_model.inputs.prompts import CATEGORY, DETAILED_DESCRIPTION
from osprey_model.training.lora import add_adapter, save_adapter
from osprey_model.training.stages import STAGES, LoraOptions, freeze_for
from osprey_model.weights.build import load_osprey
from osprey_model.weights.checkpoint import save_checkpoint
from osprey_model.weights.quantize import Bits, QuantizationUnavailable

NANO = Path(__file__).parents[3] / "demo" / "checkpoints" / "osprey-nano"
IMAGE = np.full((100, 120, 3), (90, 160, 220), np.uint8)
IMAGE[20:60, 30:70] = (200, 30, 30)
MASK = (IMAGE[..., 0] == 200).astype(bool)
QUESTIONS = [CATEGORY, DETAILED_DESCRIPTION]


@pytest.mark.parametrize("load_in", ["4bit", "8bit"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_decoder_alone_is_quantised(load_in: Bits, device: str) -> None:
    """The decoder's blocks are stored in 8 bit, all else as before; answers are text, and equal on every call."""
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes runs this")
    osprey = Osprey.from_pretrained(NANO, device=device, dtype=torch.bfloat16, load_in=load_in)
    plain = Osprey.from_pretrained(NANO, device=device, dtype=torch.bfloat16)
    stored = {"4bit": torch.uint8, "8bit": torch.int8}[load_in]
    for name, parameter in osprey.model.named_parameters():
        is_linear = name.startswith("model.layers.") and parameter.ndim == 2
        before = plain.model.get_parameter(name)
        assert parameter.dtype == (stored if is_linear else before.dtype), name
        assert is_linear or torch.equal(parameter, before), name
    first = osprey.describe(IMAGE, [MASK], QUESTIONS)
    assert osprey.describe(IMAGE, [MASK], QUESTIONS) == first
    assert all(answer.text for answer in first[0])
    # Close to the model it came from: the first answer's tokens are about as likely.
    expected = plain.describe(IMAGE, [MASK], QUESTIONS)[0][0]
    assert first[0][0].token_logprobs[0] == pytest.approx(expected.token_logprobs[0], abs=0.7)


@pytest.mark.parametrize("load_in", ["4bit", "8bit"])
def test_an_adapter_is_merged_before_the_decoder_is_quantised(load_in: Bits, tmp_path: Path) -> None:
    """The quantised weights are those of base and adapter together."""
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes runs this")
    torch.manual_seed(0)
    adapted = add_adapter(load_osprey(NANO), LoraOptions(rank=2), base=NANO)
    names = freeze_for(adapted, STAGES["lora"])
    state = {name: value.detach() for name, value in adapted.named_parameters() if name in names}
    state = {name: torch.randn_like(value) if ".lora_B." in name else value for name, value in state.items()}
    save_adapter(adapted, tmp_path / "adapter", base=NANO, state=state)
    merged = Osprey.from_pretrained(NANO, dtype=torch.bfloat16, adapter=tmp_path / "adapter")
    save_checkpoint(merged.model, tmp_path / "merged")
    expected = load_osprey(tmp_path / "merged", dtype=torch.bfloat16, load_in=load_in)
    got = Osprey.from_pretrained(NANO, dtype=torch.bfloat16, adapter=tmp_path / "adapter", load_in=load_in).model
    plain = load_osprey(NANO, dtype=torch.bfloat16, load_in=load_in)
    assert all(torch.equal(value, expected.get_parameter(name)) for name, value in got.named_parameters())
    first = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(got.get_parameter(first), plain.get_parameter(first))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bitsandbytes an error names the package before any weight is read."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(QuantizationUnavailable, match="needs the package bitsandbytes"):
        Osprey.from_pretrained(NANO, load_in="4bit")
    with pytest.raises(ValueError, match="load_in must be one of 4bit, 8bit, got '3bit'"):
        Osprey.from_pretrained(NANO, load_in="3bit")  # type: ignore[arg-type]


def test_mapped_weights_answer_the_same() -> None:
    """Mapped weights in the file's own dtype are not copied, except those that are not aligned."""
    mapped, copied = (load_osprey(NANO, dtype=torch.float16, map_weights=flag) for flag in (True, False))
    for name, value in copied.state_dict().items():
        assert torch.equal(mapped.state_dict()[name], value), name
