"""Which models there are and which one serves. No torch and no model code in this room.

A registry is a folder of trained versions and one pointer to the champion, the version that workers serve.

In reading order:

    versions.py         `Registry`: add a version, list versions, promote, roll back, record a verdict of the gate
    champion_watch.py   how a worker notices that the champion has changed
    atomic_writes.py    files and folders that are complete or absent after a kill; used by other rooms, too
    sets_in_making.py   progress of data sets that are made in the background
    official_models.py  published checkpoints: names, files, checksums
    downloads.py        resumable, verified download of one file
"""
