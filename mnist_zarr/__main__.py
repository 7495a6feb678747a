"""``python -m mnist_zarr`` is the command ``mnist-zarr``."""

from mnist_zarr.cli import main

main(prog_name="mnist-zarr")
