"""Publishing finished stores: where others read them, with a card that describes them.

May import `stores` and `files`; must not know about file formats, the catalog, or how stores are
built.
"""
