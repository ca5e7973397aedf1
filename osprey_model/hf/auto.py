"""Register Osprey with transformers' Auto classes, so that they load Osprey folders, released ones included.

Importing this module registers the classes.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, AutoTokenizer
from transformers.models.auto import tokenization_auto

from osprey_model.hf.hf_tokenizer import OspreyHfTokenizer
from osprey_model.hf.processor import OspreyProcessor
from osprey_model.modeling.hf_config import OspreyHfConfig, OspreyStage2HfConfig
from osprey_model.modeling.osprey import OspreyForCausalLM


class OspreyStage2ForCausalLM(OspreyForCausalLM):
    """The same model with the `model_type` of the released stage-2 checkpoint; the Auto classes need one class each."""

    config_class = OspreyStage2HfConfig


for _config_class, _model_class in (
    (OspreyHfConfig, OspreyForCausalLM),
    (OspreyStage2HfConfig, OspreyStage2ForCausalLM),
):
    _model_type = _config_class.model_type
    AutoConfig.register(_model_type, _config_class, exist_ok=True)
    AutoModelForCausalLM.register(_config_class, _model_class, exist_ok=True)
    AutoTokenizer.register(_config_class, OspreyHfTokenizer, exist_ok=True)
    AutoProcessor.register(_config_class, OspreyProcessor, exist_ok=True)
    # Released folders name LlamaTokenizer, which yields other ids in transformers 5. So the model type decides.
    tokenization_auto.TOKENIZER_MAPPING_NAMES[_model_type] = OspreyHfTokenizer.__name__
    tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS.add(_model_type)
