"""The experiments of the AutoTM paper, simulated.

`python -m benchmarks.paper` runs all of them, in about ten minutes on two cores; see
`__main__.py`. Another one is a module with a function that `registry.experiment` names,
and a word in the import of `__main__.py`.
"""
