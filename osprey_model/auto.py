"""`import osprey_model.auto` lets transformers' Auto classes load Osprey folders: see `osprey_model/hf/auto.py`."""

import osprey_model.hf.auto  # noqa: F401 - registers the classes
