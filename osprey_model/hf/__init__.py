"""Osprey for code that uses transformers: `AutoModelForCausalLM`, `AutoTokenizer` and `AutoProcessor`.

In reading order:

hf_tokenizer.py  the exact tokenizer as a transformers tokenizer
processor.py     image, masks and text -> the inputs of `generate`
auto.py          registers model, tokenizer and processor with the Auto classes
"""
