"""Whole images without a click: every region found, nested and described; pushed to Label Studio or kept in a file.

`regions.py` finds and nests, `annotate.py` describes, `project.py` walks a project's tasks and pushes predictions
(`predictions.py`, `label_studio_predictions.py`), `folder.py` walks a folder.
"""
