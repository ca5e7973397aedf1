"""Answers, fast: the image's prefix is prefilled once, all questions on all regions are decoded as one batch.

requests.py   what is asked and answered
prefix.py     an image -> features, prefix KV; byte-bounded LRU (`kv_cache.py`)
decoder.py    the LLaMA layers over explicit KV tensors, prefix shared by all rows
choices.py    trie over the tokens of a closed list of answers
decode.py     the greedy loop: rows end, answers leave
engine.py     `Osprey`: from_pretrained, describe, warm
"""
