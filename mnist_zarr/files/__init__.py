"""Bytes: where files are read from, how they are decoded, and how new ones appear.

Imports nothing of the package but `errors` and its own modules; must never know what the bytes
mean: no Datasets, no IDX, no stores.
"""
