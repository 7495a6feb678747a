"""The command ``mnist-zarr``: each subcommand is one call of the package."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import click

# What a public name needs is imported when it is used, so that --help stays quick.
import mnist_zarr
from mnist_zarr.errors import MnistZarrError

EXAMPLES = """
\b
Examples:
  mnist-zarr build mnist.zarr
  mnist-zarr info mnist.zarr
  mnist-zarr plot mnist.zarr --label 7 -o sevens.png
  mnist-zarr publish mnist.zarr s3://bucket/mnist.zarr
"""

BYTES_OF_UNIT = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class ByteSize(click.ParamType[int]):
    """A number of bytes, as 2000000, 2MB or 2MiB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?|)b?", str(value).strip().lower())
        if match is None:
            self.fail(
                f"{value!r} is not a number of bytes such as 2000000, 2MB or 2MiB", param, ctx
            )
        return int(float(match[1]) * BYTES_OF_UNIT[match[2]])


class _Commands(click.Group):
    """Turns an error into one sentence on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MnistZarrError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from error


@click.group(cls=_Commands, epilog=EXAMPLES, context_settings={"max_content_width": 100})
@click.version_option(package_name="mnist-zarr", prog_name="mnist-zarr")
def main() -> None:
    """Build Zarr stores from IDX files, look into them, and plot their samples."""


class StorageOption(click.ParamType[tuple[str, Any]]):
    """``KEY=VALUE``, the value as JSON or else as plain text."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Return key and value."""
        key, separator, text = str(value).partition("=")
        if not separator:
            self.fail(f"{value!r} is not of the form KEY=VALUE", param, ctx)
        try:
            return key, json.loads(text)
        except json.JSONDecodeError:
            return key, text


def _as_dict(
    ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, Any], ...]
) -> dict[str, Any] | None:
    return dict(pairs) or None


def _storage_options(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--storage-option",
        "storage_options",
        type=StorageOption(),
        multiple=True,
        callback=_as_dict,
        help="For the file system of a URL, such as anon=true; the value is JSON or plain text; "
        "may be repeated.",
    )(command)


def _progress_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--progress/--no-progress",
        default=None,
        help="Show a progress bar.  [default: on a terminal only]",
    )(command)


@main.command()
@click.argument("target")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME|FOLDER|FILE",
    help="A data set of the catalog, a folder of IDX files, or an IDX image file; may be "
    "repeated.  [default: mnist]",
)
@click.option("--labels", metavar="FILE", help="The label file of a single image file.")
@click.option(
    "--order",
    type=click.Choice(["source", "label"]),
    default="source",
    show_default=True,
    help="Keep the order of the source, or put the samples of a class together.",
)
@click.option("--chunk-bytes", type=ByteSize(), help="Uncompressed bytes of a chunk at most.")
@click.option("--shard-bytes", type=ByteSize(), help="Uncompressed bytes of a shard at most.")
@click.option("--codec", type=click.Choice(["zstd", "gzip"]), default="zstd", show_default=True)
@click.option("--level", type=int, default=9, show_default=True, help="Compression level.")
@click.option(
    "--zarr-format",
    type=click.Choice(["3", "2"]),
    default="3",
    show_default=True,
    help="Version of the Zarr format.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing store.")
@_storage_options
@_progress_option
def build(target: str, sources: tuple[str, ...], zarr_format: str, **options: Any) -> None:
    """Build the Zarr store TARGET, of the bundled MNIST or another source.

    \b
    Examples:
      mnist-zarr build mnist.zarr
      mnist-zarr build mine.zarr --source ./folder-of-idx-files --order label
    """
    source = sources[0] if len(sources) == 1 else list(sources) or "mnist"
    mnist_zarr.build(target, source, zarr_format=2 if zarr_format == "2" else 3, **options)


@main.command()
@click.argument("store")
@_storage_options
def info(store: str, storage_options: dict[str, Any] | None) -> None:
    """Show what is in STORE: arrays, chunks, bytes, classes, sources.

    \b
    Examples:
      mnist-zarr info mnist.zarr
      mnist-zarr info s3://bucket/mnist.zarr --storage-option anon=true
    """
    click.echo(mnist_zarr.summary.summarize(store, storage_options=storage_options).to_text())


@main.command()
@click.argument("store")
@click.argument("target")
@click.option("--public-url", metavar="URL", help="Where readers find it.  [default: TARGET]")
@click.option(
    "--immutable",
    is_flag=True,
    help="Promise that the address never gets other content: caches may keep chunks for ever.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing store.")
@_storage_options
@_progress_option
def publish(store: str, target: str, **options: Any) -> None:
    """Copy the finished STORE to TARGET, and read it back from where readers find it.

    \b
    Examples:
      mnist-zarr publish mnist.zarr s3://bucket/mnist.zarr
      mnist-zarr publish mnist.zarr s3://bucket/mnist.zarr \\
          --public-url https://bucket.s3.amazonaws.com/mnist.zarr
    """
    click.echo(mnist_zarr.publish(store, target, **options).to_text())


@main.command()
@click.argument("store")
@click.option("--label", "labels", multiple=True, help="Class number or name; may be repeated.")
@click.option("--split", help="Only samples of this split.")
@click.option("--rows", type=click.IntRange(1), default=5, show_default=True)
@click.option("--columns", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="Picture to write: .png, .pdf, .svg ..."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing picture.")
@_storage_options
def plot(
    store: str,
    labels: tuple[str, ...],
    split: str | None,
    rows: int,
    columns: int,
    output: str,
    overwrite: bool,
    storage_options: dict[str, Any] | None,
) -> None:
    """Draw samples of STORE: one per class, or those of the given labels.

    \b
    Examples:
      mnist-zarr plot mnist.zarr -o digits.png
      mnist-zarr plot mnist.zarr --label 7 -o sevens.png
    """
    if os.path.lexists(output) and not overwrite:
        raise click.ClickException(f"{output}: exists already; give --overwrite to replace it")
    ds = mnist_zarr.open_store(store, storage_options=storage_options)
    ds = mnist_zarr.select(ds, split=split)
    if labels:
        figure = mnist_zarr.plot.samples(ds, list(labels), rows=rows, columns=columns)
    else:
        figure = mnist_zarr.plot.one_per_class(ds, columns=columns)
    try:
        figure.savefig(output, dpi=150)
    except ValueError as error:  # a file format that matplotlib does not know
        raise click.ClickException(f"{output}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
