"""Quality of the small models on scenes that were not trained on.

evaluate.py   `make eval-demo`: click every object and some parts through the backend
scores.py     compare each answer with its scene; the table of measures
"""
