"""Register Osprey with transformers' Auto classes when this module is imported: see `osprey_model/hf/auto.py`."""

import osprey_model.hf.auto  # noqa: F401 - registers the classes
