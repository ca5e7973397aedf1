"""Fine-tune the champion on an export version and register the result.

In reading order:

    triggers.py  which projects have enough corrections for a fine-tune
    finetune.py  export, train, register, run the gate
    options.py   options of a fine-tune
    held_out.py  how many images are held out from training
    replay.py    mix old data into the new
"""
