"""Training of osprey-nano in five stages: scenes, tower, tokenizer, features, decoder.

__main__.py           the command, one stage after another
osprey_scenes.py      scenes on disk, as memory maps
osprey_questions.py   the questions about a scene with their answers
tower.py              the ConvNeXt is trained, in place of CLIP
tower_data.py         its batches
labels.py             its targets per cell and per region
depthwise.py          a faster backward pass of its convolutions on a CPU
features.py           the frozen tower's features of every region, computed once
packing.py            many questions on one image in one forward pass
decoder.py            projector, mask extractor and decoder are trained
osprey_loop.py        time budget, optimisers, averaged weights and snapshots of both trainings
osprey_eval.py        share of right answers on scenes that were not trained on
export.py             the trained model as a checkpoint folder
"""
