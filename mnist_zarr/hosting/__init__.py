"""Finished stores, put where others read them.

May import `stores` and `files`; must never know file formats, the catalog or how a store is built.
"""
