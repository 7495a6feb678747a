"""The labelled Dataset, and lazy work on it: names, classes, selections, scales, hashes.

Imports nothing of the package but `errors` and its own modules; must never know where values come
from or where they go: no files, no stores.
"""
