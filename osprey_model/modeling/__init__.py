"""The modules of the paper's figure 2: tower, mask extractor, projector, decoder, and the whole model.

In reading order:

hf_config.py       the configuration in transformers' form
vision_encoder.py  image -> four feature levels
projector.py       one level -> image tokens
mask_extractor.py  feature levels and masks -> region tokens
splice.py          text, image tokens and region tokens -> the decoder's input
packed_rows.py     several conversations about one image in one training sequence
osprey.py          `OspreyForCausalLM`: all of it in front of transformers' LLaMA
weight_names.py    the reference's names of weights and ours; whether a state dict is complete
"""
