"""Data sets by name: what they are, where their files come from, and how to open them.

May import `formats`, and what `formats` may import; must not know about stores.
"""
