"""The configuration in transformers' form: LLaMA's keys, plus a sub-dict `osprey` for Osprey's own sizes."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig

from osprey_model.config import OspreyConfig


class OspreyHfConfig(LlamaConfig):  # type: ignore[misc] # transformers is untyped here
    """Config with `model_type: osprey`. The modules are built from the frozen config that `sizes` returns."""

    model_type = "osprey"

    osprey: dict[str, Any] | None = None

    @classmethod
    def from_sizes(cls, config: OspreyConfig) -> OspreyHfConfig:
        """Create it from a frozen config."""
        values = {key: value for key, value in config.to_dict().items() if key not in ("architectures", "model_type")}
        rope_theta = values.pop("rope_theta")
        return cls(rope_parameters={"rope_type": "default", "rope_theta": rope_theta}, **values)

    def sizes(self) -> OspreyConfig:
        """Return the frozen config."""
        return OspreyConfig.from_dict(self.to_dict())


class OspreyStage2HfConfig(OspreyHfConfig):
    """Config with the `model_type` of the released stage-2 checkpoint; the architecture is the same."""

    model_type = "osprey-stage2"
