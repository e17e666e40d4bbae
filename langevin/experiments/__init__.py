"""Experiment files: what they may say, what is built from them, what a run of them leaves."""
