"""A project's labeling config, and Label Studio's result items and mask formats. No torch, no HTTP.

reader.py          XML -> `LabelConfig`: prompts, output control and fields
schema.py          the dataclasses of a labeling config
xml_tree.py        untrusted XML -> element tree
controls.py        the controls of one image with the conditions of their Views
fields.py          a per-region control -> a field
questions.py       the question of each role
labels.py          the label of a region
results.py         a region -> result items
validate.py        result items checked before they are sent
ready_configs.py   the three labeling configs that the project ships
geometry/          masks and shapes in Label Studio's formats
"""
