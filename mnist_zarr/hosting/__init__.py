"""Publishing: finished stores are copied to where others read them.

May import `stores` and `files`; must not know about file formats, the catalog, or how stores are
built.
"""
