"""The labelled Dataset and lazy work on it: names, classes, selections, scales, hashes.

May import `errors`, `pool` and `terminal` only; must not know where values come from or where
they go: no files, no stores.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["schema"])
