"""From a store to a Dataset, a summary or a verdict.

May import every other folder; must not write.
"""
