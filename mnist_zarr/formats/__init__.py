"""File formats: from files to Datasets, and from Datasets to files.

May import `files` and `dataset`; must never know stores or the names of data sets.
"""
