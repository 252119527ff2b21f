"""The experiments of the AutoTM paper, simulated.

`python -m benchmarks.paper` runs all of them; see `__main__.py`.
"""
