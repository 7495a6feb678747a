"""Places: a target, such as a path or a URL, as a Zarr store to write to or read from.

May import `files` and `dataset.records`; must not know what an array means: no Datasets, no file
formats.
"""
