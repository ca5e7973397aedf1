"""Training of sam-nano: segment_anything's network at a small size, supervised by drawn scenes.

__main__.py   the command
sam_loop.py   the training loop: optimisers, averaged weights, snapshots, resuming
data.py       scenes rendered once into shards; soft targets of their regions
crops.py      the input of one step: a whole picture or a crop around an object
prompts.py    clicks, boxes and corrections with the regions that they mean
step.py       one training step
losses.py     losses of masks and of the dense maps
model.py      sizes, initial weights, the bfloat16 copy and the auxiliary head
sam_eval.py   IoU on scenes that were not trained on
"""
