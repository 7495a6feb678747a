"""Publishing finished stores: where others read them, with a card that describes them.

May import `stores` and `files`; must never know file formats, the catalog or how a store is built.
"""
