"""From a Dataset to a store: the plan, the chunks, the metadata.

May import `stores` and `dataset`; must not know where a Dataset comes from: no file formats, no
catalog.
"""
