"""Inputs: images, masks, texts and conversations -> the model's input, exactly as in training. No model is needed.

In reading order:

images.py      an image in any form -> 8-bit RGB
preprocess.py  8-bit RGB -> the tower's input
masks.py       a mask in any form -> a float tensor of 0 and 1
tokenizer.py   text -> the ids of the released checkpoints
prompts.py     the literal prompts, question forms, and the clean-up of answers
messages.py    a conversation in any form -> turns
protocols.py   prompts and answer rules of the released demo and evaluations; used by evaluation
"""
