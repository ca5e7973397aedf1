"""Label Studio as a worker and the stack use it. One client makes every request to its API.

address.py            which URLs are Label Studio's own, and how paths in task data become URLs
credentials.py        which kind a token is, and the `Authorization` header it leads to
api.py                the client: one call, one repeat after a 401, paging, limits
error_texts.py        the errors of a call: expected, got, next step
task_filters.py       conditions on the tasks of a list
annotations.py        projects and tasks with their annotations, to collect and to export
prediction_store.py   tasks without and with predictions, to pre-annotate
next_tasks.py         the tasks that an annotator opens next, to warm their images
connection.py         a project's connection to the backend, and its webhook
"""
