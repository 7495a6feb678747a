"""The command ``mnist-zarr``: each subcommand is one call of the package.

============== =================================================
exit code      meaning
============== =================================================
0              done; of ``verify``: the store is whole;
               of ``view``: stopped by Ctrl-C
1              an error
2              wrong usage
3              there is no such store, source or data set
4              of ``verify``: the store is damaged or changed
130            interrupted by Ctrl-C; 128 + N: by signal N
============== =================================================
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import xarray as xr

# Public names import their modules on first use, so that --help stays fast.
import mnist_zarr
from mnist_zarr.errors import (
    DownloadError,
    MissingExtraError,
    MnistZarrError,
    SourceNotFoundError,
    StoreNotFoundError,
)
from mnist_zarr.writing.defaults import CHUNK_BYTES_OF_ORDER, MOST_CHUNK_OBJECTS, SHARD_BYTES

EXAMPLES = """
\b
Examples:
  mnist-zarr build mnist.zarr
  mnist-zarr info mnist.zarr
  mnist-zarr plot mnist.zarr --label 7 -o sevens.png
  mnist-zarr view mnist.zarr
  mnist-zarr publish mnist.zarr s3://bucket/mnist.zarr

\b
Exit codes:
  0 done   1 error   2 wrong usage   3 no such store or source
  4 verify: damaged or changed   130 interrupted
"""
# As a file of this name is not called; "./none" is one.
NO_LABELS = "none"
NOT_FOUND, DAMAGED, INTERRUPTED = 3, 4, 128 + signal.SIGINT
# How messages of the package name a parameter: `overwrite=True`.
PARAMETER = re.compile(r"`(?P<name>\w+)(?:=(?P<value>[^`]*))?`")
BYTES_OF_UNIT = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
# For each kind of picture, the options that set how many images it shows.
GRID_OF_KIND = {
    "samples": ("rows", "columns"),
    "balance": (),
    "mean": ("columns",),
    "sheet": ("columns",),
}


class ByteSize(click.ParamType[int]):
    """A number of bytes, such as 2000000, 2MB or 2MiB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?|)b?", str(value).strip().lower())
        if match is None:
            self.fail(
                f"{value!r} is not a number of bytes such as 2000000, 2MB or 2MiB", param, ctx
            )
        return int(float(match[1]) * BYTES_OF_UNIT[match[2]])


class PictureSize(click.ParamType[tuple[int, int]]):
    """``WIDTHxHEIGHT`` in pixels."""

    name = "WIDTHxHEIGHT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return width and height."""
        match = re.fullmatch(r"(\d+)x(\d+)", str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is not a size in pixels such as 64x64", param, ctx)
        return int(match[1]), int(match[2])


@contextlib.contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Exit on termination signals as on Ctrl-C, so that everything is cleaned up."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)  # the code that a shell reports

    names = {"SIGTERM", "SIGHUP"} & set(signal.Signals.__members__)
    if threading.current_thread() is not threading.main_thread():
        names = set()
    before = {name: signal.signal(signal.Signals[name], leave) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)


class _Command(click.Command):
    """Reports an error as one sentence on stderr, in the words of its options."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nAborted!", err=True)
            ctx.exit(INTERRUPTED)
        except MnistZarrError as error:
            is_absent = isinstance(error, StoreNotFoundError | SourceNotFoundError)
            message = _in_options(str(error), self.params)
            # What is not downloaded has a line for each mirror.
            lines = message.split("\n") if isinstance(error, DownloadError) else [message]
            raise _failure(lines, _NotFound if is_absent else click.ClickException) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise _failure([f"{where}{error.strerror or error}"]) from error


class _Commands(click.Group):
    """Commands that clean up upon any signal to end."""

    command_class = _Command

    def main(self, *args: Any, **options: Any) -> Any:
        with _exit_on_signals():
            return super().main(*args, **options)


class _NotFound(click.ClickException):
    exit_code = NOT_FOUND


def _failure(
    lines: Iterable[str], kind: type[click.ClickException] = click.ClickException
) -> click.ClickException:
    from mnist_zarr.terminal import printable

    return kind("\n".join(map(printable, lines)))


def _show(text: str) -> None:
    """Print a text, even if standard output cannot encode all of it, or nobody reads it."""
    from mnist_zarr.terminal import BLOCK

    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace(BLOCK, "#").encode(encoding, "backslashreplace").decode(encoding)
    try:
        click.echo(text)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        # Python flushes standard output once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_options(message: str, params: Iterable[click.Parameter]) -> str:
    """Return a message with options of the command in place of the parameters that it names."""
    option_of: dict[str, click.Option] = {}
    for param in params:
        if isinstance(param, click.Option):
            spelt = (param.name, param.opts[-1].lstrip("-").replace("-", "_"))
            option_of |= dict.fromkeys(filter(None, spelt), param)

    def spell(found: re.Match[str]) -> str:
        option = option_of.get(found["name"])
        try:
            value = ast.literal_eval(found["value"] or "True")
        except (ValueError, SyntaxError):  # part of a name of the caller's
            return found[0]
        has_none = option is not None and isinstance(option.type, LabelFile)
        if option is None or (value is False and not has_none):
            return found[0]
        values = value if isinstance(value, list) else [value]  # an option for each
        return " ".join(shlex.join([option.opts[-1], *_words_of(each)]) for each in values)

    return PARAMETER.sub(spell, message)


def _words_of(value: Any) -> list[str]:
    """Return the value of a parameter as words of the command line."""
    if isinstance(value, bool):
        return [] if value else [NO_LABELS]
    if isinstance(value, tuple) and all(isinstance(side, int) for side in value):
        return ["x".join(map(str, value))]  # a size of pictures
    return [*map(str, value)] if isinstance(value, tuple) else [str(value)]


class _Stopwatch:
    """Says in one line on a terminal what was done, and how long it took; elsewhere nothing."""

    def __init__(self) -> None:
        self.started = time.time()
        self.is_heard = sys.stderr.isatty()

    def say(self, place: str, *parts: str) -> None:
        if self.is_heard:
            from mnist_zarr.files.urls import shown_url
            from mnist_zarr.terminal import printable

            line = f"{shown_url(place)}: {', '.join(filter(None, parts))}"
            click.echo(f"{printable(line)} in {time.time() - self.started:.1f} s", err=True)

    def written(self, output: str) -> str:
        """Return the size of what has been written since the start, if it is a local file."""
        path = Path(output).expanduser()
        paths = list(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
        sizes = [p.stat().st_size for p in paths if p.stat().st_mtime >= self.started]
        count = f"{len(sizes)} files, " if path.is_dir() else ""
        return f"{count}{_size(sum(sizes))}" if sizes else ""


def _size(n_bytes: int) -> str:
    power = min(len(str(n_bytes)) - 1, 11) // 3
    return f"{n_bytes / 1000**power:.{min(power, 1)}f} {('bytes', 'kB', 'MB', 'GB')[power]}"


@click.group(cls=_Commands, epilog=EXAMPLES, context_settings={"max_content_width": 100})
@click.version_option(package_name="mnist-zarr", prog_name="mnist-zarr")
def main() -> None:
    """Build Zarr stores from IDX files, inspect them, and plot their samples."""


class LabelFile(click.ParamType[str | bool]):
    """A file with labels; ``none`` for no labels."""

    name = "FILE|none"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bool:
        """Return the name of the file, or False."""
        return value if value != NO_LABELS else False


class StorageOption(click.ParamType[tuple[str, Any]]):
    """``KEY=VALUE``; the value is JSON, or else plain text."""

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


def _as_names(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> list[str] | str | None:
    return value.split(",") if value and "," in value else value


_storage_options = click.option(
    "--storage-option",
    "storage_options",
    type=StorageOption(),
    multiple=True,
    callback=_as_dict,
    help="Option for the file system of a URL, such as anon=true; the value is JSON or plain text; "
    "can be repeated.",
)
_source_options = click.option(
    "--source-option",
    "source_options",
    type=StorageOption(),
    multiple=True,
    callback=_as_dict,
    help="The same for the URL to build or copy from.",
)
_progress_option = click.option(
    "--progress/--no-progress",
    default=None,
    help="Show a progress bar.  [default: on a terminal only]",
)


def _selection_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--split", help="Only samples of this split."),
        click.option(
            "--exclude",
            "excluded",
            multiple=True,
            help="All classes but this one; can be repeated.",
        ),
        click.option(
            "--label", "labels", multiple=True, help="Class number or name; can be repeated."
        ),
    ):
        command = option(command)
    return command


def _open_selected(
    store: str,
    labels: tuple[str, ...],
    excluded: tuple[str, ...],
    split: str | None,
    storage_options: dict[str, Any] | None,
) -> xr.Dataset:
    ds = mnist_zarr.open_store(store, chunks=None, storage_options=storage_options)
    ds = mnist_zarr.exclude(ds, label=list(excluded) or None)
    return mnist_zarr.select(ds, label=list(labels) or None, split=split)


@main.command()
@click.argument("target")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME|FOLDER|FILE",
    help="A data set by name, a folder of IDX files, an IDX image file, a folder of pictures, a "
    "zip archive of such files, an .npz archive, or a Zarr store; can be repeated, to concatenate "
    "several.  [default: mnist]",
)
@click.option(
    "--labels",
    type=LabelFile(),
    multiple=True,
    help="The label file of an image file, or a CSV file with the names and labels of pictures; "
    "'none' builds without labels. One for each --source.",
)
@click.option(
    "--split", multiple=True, help="The split of all samples, such as train. One for each --source."
)
@click.option(
    "--size", type=PictureSize(), help="Resize all pictures.  [default: they are of one size]"
)
@click.option(
    "--mode",
    type=click.Choice(["L", "RGB", "RGBA"]),
    help="Convert all pictures to gray, colour, or colour with transparency.  [default: the first "
    "of these that holds all of them]",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad"]),
    default="crop",
    show_default=True,
    help="What is done to pictures that do not have the proportions of --size.",
)
@click.option(
    "--class-names",
    callback=_as_names,
    metavar="NAME,NAME,...|FILE",
    help="Names of the labels 0, 1, 2, ...; or a text file with a line for each.",
)
@click.option(
    "--order",
    type=click.Choice(["source", "label", "shuffled"]),
    default="source",
    show_default=True,
    help="Keep the order of the source, group the samples by class, or shuffle them once.",
)
@click.option("--seed", type=click.IntRange(0), help="Seed of --order shuffled.  [default: 0]")
@click.option(
    "--chunk-bytes",
    type=ByteSize(),
    help="Maximum uncompressed bytes of an image chunk, such as 3000000 or 3MB.  [default: "
    f"{CHUNK_BYTES_OF_ORDER['source'] / 1e6:g}MB, in label order "
    f"{CHUNK_BYTES_OF_ORDER['label'] / 1e3:g}kB]",
)
@click.option(
    "--shard-bytes",
    type=ByteSize(),
    help="Maximum uncompressed bytes of a shard, 0 for no shards.  [default: "
    f"{SHARD_BYTES / 1e6:g}MB for more than {MOST_CHUNK_OBJECTS:,} chunks, else no shards]",
)
@click.option(
    "--codec",
    type=click.Choice(["zstd", "gzip"]),
    default="zstd",
    show_default=True,
    help="Compression of the chunks; both codecs store a checksum.",
)
@click.option(
    "--level", type=int, default=9, show_default=True, help="1 to 22 for zstd, 1 to 9 for gzip."
)
@click.option(
    "--zarr-format",
    type=click.Choice(["3", "2"]),
    default="3",
    show_default=True,
    help="Version of the Zarr format.",
)
@click.option(
    "--rescale",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Let the store open as floats in this range; the stored integers do not change.",
)
@click.option("--page", is_flag=True, help="Add index.html, which shows the store in a browser.")
@click.option("--overwrite", is_flag=True, help="Replace an existing store.")
@_storage_options
@_source_options
@_progress_option
def build(
    target: str,
    sources: tuple[str, ...],
    labels: tuple[str | bool, ...],
    split: tuple[str, ...],
    zarr_format: str,
    **options: Any,
) -> None:
    """Build the Zarr store TARGET from MNIST or another source.

    \b
    Examples:
      mnist-zarr build mnist.zarr
      mnist-zarr build mine.zarr --source ./folder-of-idx-files --order label
      mnist-zarr build photos.zarr --source ./folder-of-pictures --size 64x64
      mnist-zarr build all.zarr --source mnist --source more.zarr
      mnist-zarr build own.zarr --source X1.idx --labels y1.idx --split train \\
          --source X2.idx --labels y2.idx --split test
      mnist-zarr build scaled.zarr --rescale -1 1
    """
    _download(sources)
    watch = _Stopwatch()
    mnist_zarr.build(
        target,
        _one_or_all(sources) or "mnist",
        labels=_one_or_all(labels),
        split=_one_or_all(split),
        zarr_format=2 if zarr_format == "2" else 3,
        **options,
    )
    if watch.is_heard:
        watch.say(target, _describe_store(target, options["storage_options"]), "built")


def _one_or_all(values: tuple[Any, ...]) -> Any:
    return (values[0] if len(values) == 1 else list(values)) if values else None


def _download(sources: Iterable[str]) -> None:
    """Download data sets ahead of the build, on a terminal, which then hears of each one."""
    from mnist_zarr.catalog.download import is_here, path_of
    from mnist_zarr.catalog.entries import CATALOG

    for name in sources if sys.stderr.isatty() else ():
        watch = _Stopwatch()
        files = CATALOG[name].files if name in CATALOG else ()
        with contextlib.suppress(MissingExtraError):  # of which the build has more to say
            if missing := [file for file in files if not is_here(file)]:
                mnist_zarr.open_dataset(name)
                paths = [path_of(file) for file in missing]
                size = _size(sum(path.stat().st_size for path in paths))
                where = f"downloaded to {paths[0].parent}"
                watch.say(name, f"{len(paths)} files, {size}", where)


def _describe_store(target: str, storage_options: dict[str, Any] | None) -> str:
    from mnist_zarr.dataset.schema import LABEL, SAMPLE
    from mnist_zarr.dataset.unlabelled import are_unlabelled, is_marked
    from mnist_zarr.stores import inventory
    from mnist_zarr.stores.targets import parse_target

    with contextlib.suppress(MnistZarrError, OSError):  # it may be that only writing is allowed
        store = parse_target(target, storage_options).open()
        root = inventory.read_root(store)
        arrays = list(inventory.arrays_in(inventory.open_documents(root)))
        lengths = [array.shape[0] for array in arrays if SAMPLE in inventory.dims_of(array)]
        sizes = inventory.list_sizes(store)
        without_labels = ""
        if any(array.basename == LABEL and is_marked(array.attrs) for array in arrays):
            ds = mnist_zarr.open_store(target, chunks=None, storage_options=storage_options)
            without_labels = f" ({are_unlabelled(ds[LABEL]).sum():,} without labels)"
        size = _size(sum(sizes.values()))
        return f"{lengths[0]:,} samples{without_labels}, {len(sizes):,} objects, {size}"
    return ""


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
    _show(mnist_zarr.summarize(store, storage_options=storage_options).to_text())


@main.command()
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@_storage_options
@_progress_option
def verify(store: str, as_json: bool, **options: Any) -> None:
    """Check every byte of STORE; exit with 0 if it is whole, 4 if not.

    Lists each object that is damaged or missing. A store of a data set known
    by name is also compared with that data set.

    \b
    Examples:
      mnist-zarr verify mnist.zarr
      mnist-zarr verify https://host/mnist.zarr --json
    """
    watch = _Stopwatch()
    report = mnist_zarr.verify(store, **options)
    _show(report.to_json() if as_json else report.to_text())
    watch.say(store, f"{report.n_samples:,} samples", f"{report.n_objects:,} objects", "verified")
    click.get_current_context().exit(0 if report.is_whole else DAMAGED)


@main.command()
@click.argument("store")
@click.argument("target")
@click.option("--public-url", metavar="URL", help="URL that readers use.  [default: TARGET]")
@click.option(
    "--immutable",
    is_flag=True,
    help="Promise that the content at the URL never changes: caches may keep chunks forever.",
)
@click.option(
    "--page/--no-page",
    default=True,
    show_default=True,
    help="Write index.html, which shows the store in a browser.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing store.")
@_storage_options
@_source_options
@_progress_option
def publish(store: str, target: str, **options: Any) -> None:
    """Copy the finished STORE to TARGET and read it back.

    \b
    Examples:
      mnist-zarr publish mnist.zarr s3://bucket/mnist.zarr
      mnist-zarr publish mnist.zarr s3://bucket/mnist.zarr \\
          --public-url https://bucket.s3.amazonaws.com/mnist.zarr
    """
    watch = _Stopwatch()
    published = mnist_zarr.publish(store, target, **options)
    _show(published.to_text())
    size = _size(sum(stored.size for stored in published.objects.values()))
    watch.say(published.url, f"{len(published.objects):,} objects", size, "published")


@main.command()
@click.argument("store")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port.  [default: any free]")
@click.option("--browser/--no-browser", default=True, help="Open the page.  [default: yes]")
@_storage_options
def view(store: str, port: int, browser: bool, storage_options: dict[str, Any] | None) -> None:
    """Show STORE in the browser until Ctrl-C is pressed.

    Only programs of this machine can reach the page.

    \b
    Examples:
      mnist-zarr view mnist.zarr
      mnist-zarr view s3://bucket/mnist.zarr --storage-option anon=true
    """
    import webbrowser

    from mnist_zarr.hosting.viewer import serve_store

    served = serve_store(store, port=port, storage_options=storage_options)
    with served as url, contextlib.suppress(KeyboardInterrupt):
        click.echo(f"{url}  (Ctrl-C stops)")
        if browser:
            webbrowser.open(url)
        _wait()


def _wait() -> None:
    while True:
        time.sleep(3600)


@main.command()
def sources() -> None:
    """List the data sets known by name.

    Shows size, licence, origin, and whether a data set is cached.

    \b
    Example:
      mnist-zarr sources
    """
    _show(mnist_zarr.describe_catalog())


@main.command()
@click.argument("store")
@_selection_options
@click.option(
    "--kind",
    type=click.Choice(list(GRID_OF_KIND)),
    default="samples",
    help="""\b
    samples  one per class, more with --label
    balance  samples per class and split
    mean     mean image per class
    sheet    a row of samples per class
    [default: samples]
    """,
)
@click.option("--rows", type=click.IntRange(1), help="Rows of --kind samples.  [default: 5]")
@click.option("--columns", type=click.IntRange(1), help="Images per row.  [default: 5; sheet: 10]")
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="Picture to write: .png, .pdf, .svg ..."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing picture.")
@_storage_options
def plot(
    store: str,
    labels: tuple[str, ...],
    excluded: tuple[str, ...],
    split: str | None,
    kind: str,
    output: str,
    overwrite: bool,
    storage_options: dict[str, Any] | None,
    **grid: int | None,
) -> None:
    """Draw a picture of STORE: its samples or its classes.

    \b
    Examples:
      mnist-zarr plot mnist.zarr -o digits.png
      mnist-zarr plot mnist.zarr --label 7 -o sevens.png
      mnist-zarr plot mnist.zarr --kind balance --exclude 7 -o balance.png
      mnist-zarr plot mnist.zarr --kind mean --split test -o means.png
      mnist-zarr plot mnist.zarr --kind sheet --label 3 --label 8 -o sheet.png
    """
    import matplotlib

    given: dict[str, Any] = {name: n for name, n in grid.items() if n is not None}
    for name in given:
        if name not in GRID_OF_KIND[kind]:
            raise click.UsageError(f"--kind {kind} has no --{name}")
    watch = _Stopwatch()
    ds = _open_selected(store, labels, excluded, split, storage_options)
    draws_samples = bool(labels) or "rows" in given
    draw = {
        "samples": mnist_zarr.plot.samples if draws_samples else mnist_zarr.plot.one_per_class,
        "balance": mnist_zarr.plot.class_balance,
        "mean": mnist_zarr.plot.mean_images,
        "sheet": mnist_zarr.plot.contact_sheet,
    }[kind]
    matplotlib.use("agg")  # pyplot shall open no windows
    axes = draw(ds, **given)
    mnist_zarr.plot.save_figure(axes.figure, output, overwrite=overwrite)
    watch.say(output, f"picture of {kind}", watch.written(output), "drawn")


@main.command()
@click.argument("store")
@_selection_options
@click.option(
    "--to",
    "form",
    type=click.Choice(["idx", "npz"]),
    required=True,
    help="The original IDX files, or a NumPy archive scaled to [-1, 1].",
)
@click.option(
    "-o", "--output", required=True, metavar="FOLDER|FILE", help="Folder for IDX files, or archive."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@_storage_options
@_progress_option
def export(
    store: str,
    labels: tuple[str, ...],
    excluded: tuple[str, ...],
    split: str | None,
    form: str,
    output: str,
    storage_options: dict[str, Any] | None,
    **options: Any,
) -> None:
    """Write STORE as IDX files or as a NumPy archive.

    The samples are in source order, whatever the order of STORE.

    \b
    Examples:
      mnist-zarr export mnist.zarr --to idx -o originals
      mnist-zarr export mnist.zarr --to npz -o mnist_scaled.npz
      mnist-zarr export mnist.zarr --to idx --label 7 --split test -o sevens
    """
    watch = _Stopwatch()
    ds = _open_selected(store, labels, excluded, split, storage_options)
    if form == "idx":
        mnist_zarr.write_idx_files(ds, output, **options)
    else:
        mnist_zarr.write_npz(ds, output, **options)
    watch.say(output, f"{ds.sizes['sample']:,} samples", watch.written(output), "exported")
