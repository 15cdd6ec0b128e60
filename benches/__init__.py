"""Benchmarks that compare holdfast with the official savers in one run, and read all data back."""
