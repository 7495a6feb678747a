"""Read IDX files as labelled xarray Datasets; write them as chunked, verified Zarr stores.

>>> import mnist_zarr
>>> ds = mnist_zarr.open_dataset("mnist")
>>> mnist_zarr.select(ds, label=7, split="train").sizes["sample"]
6265
"""

import lazy_loader

# Importing the package is fast: each name imports its module on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
