"""Real time on a real GPU: every way to run a training step, side by side.

`python -m benchmarks.gpu` measures on the GPU that is here, or compiles for a described
one and prints what is modelled; see `__main__.py`. The process that is started never
touches the device: each task runs in a process of its own (`worker.py`), which says
what it finds line by line (`driver.py`), and all of it is saved at once (`results.py`).
"""
