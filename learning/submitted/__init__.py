"""Read what annotators submitted: Label Studio's result items as regions. No network and no database.

In reading order:

    submissions.py  `Submissions`, all regions and images of a project, the input of every export
    regions.py      one annotation -> `SubmittedRegion` records
    items.py        the result items of one region: field values, label, suggestion
    checks.py       compare regions with the present labeling config
    problems.py     the record of something that cannot be used
"""
