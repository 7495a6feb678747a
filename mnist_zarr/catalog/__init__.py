"""Data sets by name: what they are, where their files come from, how they are opened.

May import `formats` and what `formats` may import; must never know stores.
"""
