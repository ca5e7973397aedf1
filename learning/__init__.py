"""From a submitted annotation to a better model.

Workers of the queues `data` and `train` run this code. In reading order:

    main.py       start a worker of these queues
    jobs.py       the functions that the queues call: collect, reconcile, export, trigger, fine-tune
    runtime.py    what such a worker holds: the correction store, the way to Label Studio, the device
    schedule.py   jobs that start periodically
    submitted/    read what annotators submitted: regions with masks, field values and problems
    corrections/  collect submissions from Label Studio into a database, the correction store
    export/       write submissions as a versioned training data set, and read it back
    training/     fine-tune the champion on an export
    gate/         compare a candidate with the champion and decide whether it may be promoted
    report/       one HTML page about what annotators corrected
"""
