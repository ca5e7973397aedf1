"""True field values of drawn scenes, and sets of such scenes as export versions.

A fine-tune replays one of these sets; the gate checks that no candidate got worse on the other, the frozen base set.

picked.py        which regions of a scene are clicked
fields.py        the true field values of a region
sets.py          scenes with true values -> an export version
sample_sets.py   the two sets of `make up` and docker compose
__main__.py      `python -m demo.truth`: make these two sets
"""
