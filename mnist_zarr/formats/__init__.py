"""File formats: from files to Datasets, and from Datasets to files.

May import `files` and `dataset`; must not know about stores, or data sets by name.
"""
