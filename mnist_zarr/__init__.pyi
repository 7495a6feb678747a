# What the package offers. lazy_loader reads this file at run time, and wants relative imports.
from . import plot as plot
from . import summary as summary
from .backend import open_idx as open_idx
from .builder import build as build
from .catalog import open_catalog as open_catalog
from .idx import read_idx as read_idx
from .idx import write_idx as write_idx
from .publication import publish as publish
from .reader import open_store as open_store
from .selection import select as select
from .writer import write_zarr as write_zarr
