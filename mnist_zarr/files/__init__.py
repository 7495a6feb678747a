"""Bytes: where files are read from, how they are decoded, and how new files appear.

May import `errors`, `pool` and `terminal` only; must not know what the bytes mean: no Datasets,
no IDX, no stores.
"""
