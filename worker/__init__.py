"""The processes that own models and work on the queues `masks`, `describe` and `prelabel`.

main.py                entry of a worker process
settings.py            its settings, read from the environment
queue_worker.py        RQ's worker with heartbeat, short leases and reconnection
current_runtime.py     the process's runtime, which jobs look up
runtime.py             the models and stores of a worker for clicks
jobs.py                the job functions of a click
model_protocols.py     the methods of the two models that jobs call
sam/                   SAM: points and boxes -> masks
shared_embedding.py    encode an image once among all workers
osprey_describer.py    osprey_model as a describer of jobs
describing/            describe jobs that run together
load_version.py        load the registry's champion or another version
prelabel/              pre-annotation of projects and folders
images/                a task's image: resolved, fetched, cached
label_studio/          Label Studio's API
guarded_http.py        HTTP that does not reach private addresses
processor.py           device, threads and priority of the process
"""
