"""The stack on one machine (`make up`): Label Studio, Redis, the backend and four workers under one supervisor.

In reading order:

    __main__.py            the commands that make calls: up, down, status, logs, osprey
    up.py                  start everything step by step, with one progress line per component
    settings.py            what a person may choose, read from the environment
    state.py               the state folder: ports, secrets, logs and data between two runs
    components.py          per process of the stack: its command, its environment and its health check
    starting.py            start components and wait until they work
    supervisor.py          start, stop and ask supervisord, which restarts components that end
    run.py                 the program that supervisord starts: it becomes one component
    label_studio_token.py  make and check the personal access token of the workers
    sample_project.py      make the sample project in Label Studio
    child_processes.py     the same components as child processes, for measurements and simulations
    environment.py         `make env`: the two Python environments
    compose_secrets.py     docker compose: the random passwords
    compose_init.py        docker compose: token, sample project and base set
"""
