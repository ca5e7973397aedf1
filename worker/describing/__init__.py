"""Describe jobs: several at once in one engine batch, each answer published as soon as it is complete.

batch.py          the jobs that run together; waiting jobs join between two tokens
run.py            one job: its image, cached answers, questions in the engine, result
answer_cache.py   answers in Redis, so that none is computed twice
"""
