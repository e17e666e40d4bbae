"""Engines: what compiles the kernels and runs them, loops and memory only."""
