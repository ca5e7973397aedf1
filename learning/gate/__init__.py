"""The gate: compare a candidate with the champion on held-out data and decide whether it may be promoted.

In reading order:

    run_gate.py         load both models, ask both, store the verdict
    exam.py             read an evaluation set from an export version
    evaluate.py         ask a model all questions of an evaluation set; measure latency
    gate.py             the criteria
    statistics.py       bootstrap intervals, calibration error
    region_fit.py       whether answers fit their own region
    text_similarity.py  compare field values
"""
