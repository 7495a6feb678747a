"""Places: from a target, such as a path or a URL, to a Zarr store to write into or to read from.

May import `files`; must never know what an array means: no Datasets, no file formats.
"""
