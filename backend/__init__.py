"""Label Studio's HTTP contract on one side, the job queue on the other. No torch, no model.

One request, file by file:

    app.py          routes, authentication (auth.py), limits and deadlines
    ml_backend.py   the model class of label-studio-ml: a click, or an opened task
    predict.py      one click from the request's JSON to the result items that go back
    click/          the steps of a click (its __init__.py lists them in order)

Beside it: webhook.py turns Label Studio's webhooks into jobs, served_version.py knows which model version the workers
serve, main.py wires everything, settings.py reads the environment, ports.py lists what is used of the queue.

Files import only files of an earlier group: settings, ports | click, served_version, auth | predict | ml_backend,
webhook | app | main.
"""
