"""SAM: points and boxes -> masks.

segmenter.py         embed an image once, then turn prompts into masks
prompts.py           check the points and the box of a prompt
masks.py             low-resolution logits -> masks of the image's size
everything.py        find all regions of an image, without a prompt
presets.py           build and load a SAM
device.py            number type and batch size on a device
embedding_store.py   embeddings that workers share through Redis
logits_store.py      logits of earlier masks, for further clicks; shared through Redis
"""
