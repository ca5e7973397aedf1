"""Parts that the benchmarks start and use.

machine.py             hardware and versions of a result
private_service.py     Redis, backend and workers as child processes
scene_server.py        pictures of scenes over HTTP
annotator_page.py      one annotator's page: sends clicks, keeps regions
temporary_project.py   a project in a running Label Studio
"""
