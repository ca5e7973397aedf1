"""SAM: points and boxes -> masks.

segmenter.py          embed an image once, then turn prompts into masks
prompts.py masks.py   what a prompt may be; logits -> masks
everything.py         all regions of an image, without a prompt
presets.py device.py  which SAM, and how it computes
embedding_store.py shared_embedding.py logits_store.py   what workers share through Redis
"""
