"""Collect submissions from Label Studio into the correction store, a database (SQLite or PostgreSQL).

In reading order:

    collect.py             read tasks from Label Studio and store them: by hint, or all changes of a project
    records.py             the records that enter and leave the store
    store.py               `Store`: save a task; regions, fields, problems and counts of a project
    task_rows.py           write one task as rows
    schema.py              the tables and their migrations
    stored_submissions.py  `Submissions` from the store, for an export
"""
