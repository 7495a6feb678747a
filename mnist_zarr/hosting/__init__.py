"""Finished stores where others read them, with a card that describes and a page that shows them.

May import `stores` and `files`; must not know about file formats, the catalog, or how stores are
built.
"""
