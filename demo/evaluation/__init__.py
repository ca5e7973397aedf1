"""Measuring the assistant from outside: what an annotator's page would get, over HTTP /predict."""
