"""The path of one click. `backend/predict.py` calls the steps in this order:

    prompts.py         the request's context -> points or a box, in pixels
    session.py         the regions that the backend answered before, from Redis
    page.py            session and drafts -> the regions that the annotator's page shows
    click.py           all of this as one object, `Click`
    gestures.py        prompt and page -> what the annotator wants
    region_finder.py   gesture -> region: asks SAM for masks (masks queue) and chooses one with candidates.py
    describer.py       region -> the values of its fields: asks Osprey (describe queue)
    late_regions.py    earlier regions that are sent again, because their values came after their click

`region.py` holds the record of a region that these steps share, `notices.py` the texts that the annotator reads,
`timings.py` the time of each step.
"""
