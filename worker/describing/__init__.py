"""Describe jobs: many at once in one engine batch, answers as they come.

batch.py run.py       jobs that wait join the one that runs, between two tokens
answer_cache.py       an answer given once is not computed again
partial_answers.py    what is ready before the job is
"""
