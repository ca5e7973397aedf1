"""The engine: fast answers. An image's prefix is prefilled once; all questions on all regions share a running batch.

In reading order:

requests.py       questions and requests; answers, their warnings, and failures
engine.py         `Osprey`: from_pretrained, describe, describe_many, chat, warm, scheduler
scheduler.py      requests wait by priority; their questions become rows when slots are free
prompt_plan.py    a question -> its prompt's ids, split where the image prefix ends and where the region stands
prefix.py         an image -> its features and prefix, kept in a cache
regions.py        masks -> region tokens, a bounded number of pixels at a time
running_batch.py  the rows of one priority: prefill new ones, decode one token of each, remove those that ended
answers.py        a finished row -> its `Answer`
decoding/         the layers, keys and values, and the choice of the next token
"""
