"""From a store to a Dataset, to its figures, or to a verdict on it.

May import every other folder; must never write.
"""
