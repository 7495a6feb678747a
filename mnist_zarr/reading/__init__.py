"""From a store back to a Dataset, to figures, to a verdict.

May import every other folder; must never write.
"""
