"""Training of the two small models of the demo, on drawn scenes.

sam/           sam-nano: a small SAM
osprey/        osprey-nano: a small Osprey
tokenizer.py   osprey-nano's tokenizer
"""
