"""The `osprey` command.

In reading order:

    main.py        the command: groups of sub-commands, options that all share, exit codes
    screen.py      what commands share on the screen: failures, Ctrl-C, progress bars
    backend.py     `osprey backend`: answer the requests of Label Studio
    worker.py      `osprey worker`, `osprey status`: run jobs; show queues, workers and failures
    config.py      `osprey config check`: which fields of a labeling config are filled
    prelabel.py    `osprey prelabel`: pre-annotate a project
    describe.py    `osprey describe`: describe the images of a folder without Label Studio
    collect.py     `osprey collect`: copy submissions from Label Studio into the correction store
    export.py      `osprey export`: write submissions as training data
    finetune.py    `osprey finetune`: fine-tune the champion on corrections
    registry.py    `osprey gate | promote | rollback`, `osprey models add | list`: choose the version that serves
    report.py      `osprey report`: one HTML page about what annotators corrected
    models.py      `osprey models pull | convert | start`: get published checkpoints
    train.py       `osprey train`: train a stage of the paper, or a LoRA adapter
"""
