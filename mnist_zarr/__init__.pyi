# The public names. lazy_loader reads this file at run time, and requires relative imports.
from . import errors as errors
from . import plot as plot
from .builder import build as build
from .builder import load as load
from .catalog.opening import describe_catalog as describe_catalog
from .catalog.opening import open_dataset as open_dataset
from .catalog.openml import open_openml as open_openml
from .catalog.qmnist import join_writers as join_writers
from .changes import append as append
from .changes import update as update
from .dataset import schema as schema
from .dataset.batches import batches as batches
from .dataset.classes import class_attrs as class_attrs
from .dataset.schema import make_dataset as make_dataset
from .dataset.selection import exclude as exclude
from .dataset.selection import select as select
from .dataset.transform import rescale as rescale
from .dataset.transform import standardize as standardize
from .dataset.transform import stratified_split as stratified_split
from .formats.idx import read_idx as read_idx
from .formats.idx import write_idx as write_idx
from .formats.idx_engine import open_idx as open_idx
from .formats.idx_export import write_idx_files as write_idx_files
from .formats.npz import open_npz as open_npz
from .formats.npz import write_npz as write_npz
from .formats.pictures import open_pictures as open_pictures
from .hosting.publication import publish as publish
from .reading.reader import open_store as open_store
from .reading.summary import summarize as summarize
from .reading.verification import verify as verify
from .writing.writer import write_zarr as write_zarr

__version__: str
