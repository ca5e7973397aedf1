"""Benchmarks: what each number means is in README.md beside this file."""
