"""Training: the paper's three stages, and LoRA fine-tuning.

In reading order:

stages.py         what each stage trains, and its hyperparameters
start.py          the checkpoint that stage 1 starts from
run.py            the options of a run, and its result
data.py           data configs -> checked data sets and batches
feature_cache.py  the frozen tower's output per image
lora.py           LoRA matrices: add, continue, save
trainer.py        transformers' Trainer with weighted tokens and complete checkpoints
checkpoints.py    complete checkpoints of a run, and the removal of old ones
train.py          a run from options to result
"""
