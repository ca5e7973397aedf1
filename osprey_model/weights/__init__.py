"""Weights: checkpoint folders and adapter folders -> loaded models.

In reading order:

checkpoint.py  read and write the files of a checkpoint folder, completely or not at all
build.py       a config -> a model with random weights; a checkpoint folder -> a loaded model
adapter.py     LoRA adapter folders, and their merge into a model
quantize.py    the decoder's linear layers in 4 or 8 bit
convert.py     a released checkpoint -> a folder with safetensors

The names of the weights are in `osprey_model/modeling/weight_names.py`.
"""
