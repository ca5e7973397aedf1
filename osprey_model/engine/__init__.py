"""Answers, fast: an image's prefix is prefilled once, all questions on all regions of several images share a batch.

engine.py       `Osprey`: from_pretrained, describe, describe_many, chat, warm
requests.py     what is asked, what is answered, what can be wrong
session.py      the scheduler: requests wait by priority, their rows come in as slots become free
questions.py    a question -> ids, split where its region stands
regions.py      masks (`masks.py`) -> region tokens, a bounded number at a time
prefix.py       an image -> features and prefix, kept in a byte-bounded LRU (`lru.py`)
lane.py         the slots of one priority: prompts in, one token per step, rows out
decode.py       a row, and the choice of its next token; `choices.py`: closed lists as a trie
decoder.py      the LLaMA layers over explicit keys and values (`kv_cache.py`)
attention.py    prefix and own positions, merged by log-sum-exp
linear.py       the matrices, laid out for the CPU
static_step.py  the decode step in fixed shapes, replayed as a graph on a GPU
answers.py      a finished row -> `Answer`
"""
