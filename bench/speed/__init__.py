"""Seconds and memory. Each benchmark is a command, `python -m bench.speed.NAME`.

click.py                from a click to its mask and all fields
load.py                 several annotators, with and without bulk jobs
engine.py               many questions on one image: the released code's way against the engine's
engine_setting.py       its model, image and questions
engine_ways.py          the four ways that it compares
engine_limit.py         the arithmetic floor
sam.py                  SAM's steps and everything mode
rle.py                  masks to and from Label Studio's formats
full_size.py            Osprey at its full size with random weights
released_checkpoint.py  its checkpoint, in the released layout
"""
