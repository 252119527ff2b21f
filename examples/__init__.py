"""Worked examples, each a module to run with `python -m examples.<name>`."""
