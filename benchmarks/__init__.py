"""Training steps to plan, baselines to compare with, and the figures both give."""
