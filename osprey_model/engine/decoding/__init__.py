"""Decoding: the LLaMA layers over explicit keys and values, and the choice of each row's next token.

In reading order:

rows.py           a row: prompt, answer so far, and the greedy choice of the next token
choices.py        lists of choices as a trie, and a row's walk through it
kv_cache.py       keys and values of an image prefix, and of the rows' own positions
decoder.py        the layers: prefill prefixes, prefill rows behind them, run one step of all rows
attention.py      attention to the prefix and to own positions, merged by log-sum-exp
packed_linear.py  the layers' matrices, in a faster layout on a CPU
static_step.py    the same step in fixed shapes, replayed as a CUDA graph on a GPU
"""
