"""The labelled Dataset and lazy work on it: names, classes, selections, scales, hashes.

May import `errors`, `pool` and `terminal` only; must not know where values come from or where
they go: no files, no stores.
"""
