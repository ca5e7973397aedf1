"""Pre-annotation: find, nest and describe all regions of whole images, without clicks.

annotate.py           one image: its regions with all of their fields
regions.py            SAM's everything mode -> nested regions
project.py            all tasks of a Label Studio project
predictions.py        an annotated image -> a prediction of Label Studio
folder.py             all images of a folder -> JSON lines
overlay.py            an annotated image -> a picture with masks and texts
local_models.py       both models in a command's own process
job.py                the job of the queue `prelabel`: a few seconds of a run
runs.py               the progress of such a run, in Redis
prelabel_runtime.py   the models of a worker of that queue
"""
