"""The language between backend and workers: the jobs, their client, and small records in Redis.

contracts.py           the jobs and answers, frozen and as JSON
job_kinds.py           per kind of job: its function, queue and time limits
queue.py               the client: submit a job, wait for its answer, read the queue's health
settings.py            the client's settings
errors.py              the errors that cross the queue
heartbeat.py           the workers' heartbeats
mask_codec.py          masks <-> COCO RLE
task_image.py          a task -> the reference to its image
field_answers.py       fields -> questions; answers -> field values
partial_answers.py     answers of a describe job before it is complete
task_arms.py           which tasks are blind or in the random arm
finetune_progress.py   the progress of the running fine-tune
failures.py            the last failures, for `osprey status`
records.py             read and write such records across releases
"""
