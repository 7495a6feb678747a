"""What public functions make of a home folder, of a URL without a slash, and of wrong things."""

from __future__ import annotations

import ast
import io
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import xarray as xr
from PIL import Image
from zarr.storage import MemoryStore

import mnist_zarr
from mnist_zarr.cli import main
from mnist_zarr.errors import MnistZarrError, OptionError
from tests.support.commands import run_command
from tests.support.digits import square_digits
from tests.support.partners import partner

DIGITS = square_digits(40)
IMAGES = DIGITS.image.values
PACKAGE = Path(mnist_zarr.__file__).parent


@pytest.fixture(scope="module")
def furnished_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file or store of each kind."""
    home = tmp_path_factory.mktemp("furnished")
    mnist_zarr.write_zarr(DIGITS, home / "a.zarr")
    mnist_zarr.write_zarr(DIGITS, home / "a.zarr.zip")
    mnist_zarr.write_npz(DIGITS, home / "a.npz")
    mnist_zarr.write_idx_files(DIGITS, home / "files")
    (home / "pictures" / "7").mkdir(parents=True)
    Image.fromarray(IMAGES[0]).save(home / "pictures" / "7" / "a.png")
    return home


@pytest.fixture
def home(furnished_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a file or store of each kind; the present folder is another one."""
    home, here = tmp_path / "home", tmp_path / "here"
    shutil.copytree(furnished_home, home)
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(here)
    return home


IMAGE_FILE = "files/train-images-idx3-ubyte"
# Called with "~/" as text, or as a path.
READERS: dict[str, Callable[[Any], Any]] = {
    "open_store": lambda at: mnist_zarr.open_store(at("a.zarr")),
    "open_store zip": lambda at: mnist_zarr.open_store(at("a.zarr.zip")),
    "summarize": lambda at: mnist_zarr.summarize(at("a.zarr")),
    "verify": lambda at: mnist_zarr.verify(at("a.zarr")),
    "update": lambda at: mnist_zarr.update(at("a.zarr"), lambda ds: ds),
    "append": lambda at: mnist_zarr.append(at("a.zarr"), DIGITS),
    "publish from": lambda at: mnist_zarr.publish(at("a.zarr"), MemoryStore()),
    "read_idx": lambda at: mnist_zarr.read_idx(at(IMAGE_FILE)),
    "open_idx": lambda at: mnist_zarr.open_idx(at(IMAGE_FILE)),
    "open_idx folder": lambda at: mnist_zarr.open_idx(at("files")),
    "open_idx labels": lambda at: mnist_zarr.open_idx(
        at(IMAGE_FILE), labels=at("files/train-labels-idx1-ubyte")
    ),
    "engine": lambda at: xr.open_dataset(at("files"), engine="idx"),
    "open_npz": lambda at: mnist_zarr.open_npz(at("a.npz")),
    "open_pictures": lambda at: mnist_zarr.open_pictures(at("pictures")),
    "build from files": lambda at: mnist_zarr.build(MemoryStore(), at("files")),
    "build from npz": lambda at: mnist_zarr.build(MemoryStore(), at("a.npz")),
    "build from a store": lambda at: mnist_zarr.build(MemoryStore(), at("a.zarr")),
    "build from a zip": lambda at: mnist_zarr.build(MemoryStore(), at("a.zarr.zip")),
}
WRITERS: dict[str, Callable[[Any], Any]] = {
    "build": lambda at: mnist_zarr.build(at("new"), DIGITS),
    "build zip": lambda at: mnist_zarr.build(at("new.zip"), DIGITS),
    "write_zarr": lambda at: mnist_zarr.write_zarr(DIGITS, at("new")),
    "publish to": lambda at: mnist_zarr.publish("../home/a.zarr", at("new")),
    "write_idx": lambda at: mnist_zarr.write_idx(IMAGES, at("new")),
    "write_idx gzip": lambda at: mnist_zarr.write_idx(IMAGES, at("new.gz")),
    "write_idx_files": lambda at: mnist_zarr.write_idx_files(DIGITS, at("new")),
    "write_npz": lambda at: mnist_zarr.write_npz(DIGITS, at("new.npz")),
    "save_figure": lambda at: mnist_zarr.plot.save_figure(
        mnist_zarr.plot.samples(DIGITS).figure, at("new.png")
    ),
}


@pytest.mark.parametrize("as_path", [False, True])
@pytest.mark.parametrize("name", [*READERS, *WRITERS])
@pytest.mark.usefixtures("home")
def test_a_tilde_is_the_home_folder(name: str, as_path: bool) -> None:
    (READERS | WRITERS)[name](lambda place: Path("~", place) if as_path else f"~/{place}")
    assert os.listdir() == []
    assert any(entry.startswith("new") for entry in os.listdir("../home")) == (name in WRITERS)


@pytest.mark.parametrize(
    "args",
    [
        ["build", "~/new.zarr", "--source", "~/files", "--level", "1"],
        ["build", "~/new.zarr", "--source", f"~/{IMAGE_FILE}"],
        ["info", "~/a.zarr"],
        ["verify", "~/a.zarr"],
        ["publish", "~/a.zarr", "~/new.zarr"],
        ["plot", "~/a.zarr", "-o", "~/new.png"],
        ["export", "~/a.zarr", "--to", "idx", "-o", "~/new"],
        ["export", "~/a.zarr", "--to", "npz", "-o", "~/new.npz"],
    ],
    ids=lambda args: args[0],
)
@pytest.mark.usefixtures("home")
def test_a_quoted_tilde_is_the_home_folder_at_the_command_line(args: list[str]) -> None:
    done = run_command(*args)
    assert (done.exit_code, done.stderr) == (0, "")
    assert os.listdir() == []
    assert any(name.startswith("new") for name in os.listdir("../home")) == ("new" in str(args))


@pytest.mark.usefixtures("home")
def test_a_tilde_is_the_home_folder_of_a_repository_and_of_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mnist_zarr.catalog.download import cache_folder

    monkeypatch.setenv("MNIST_ZARR_CACHE", "~/cache")
    assert cache_folder() == Path.home() / "cache"
    partner("icechunk")
    mnist_zarr.write_zarr(DIGITS, "icechunk+file://~/repository")
    assert (Path.home() / "repository").is_dir()
    assert os.listdir() == []


ONE_SLASH: list[tuple[Any, str]] = [
    ("s3:/bucket/x.zarr", "s3://bucket/x.zarr"),
    (Path("s3://bucket/x.zarr"), "s3://bucket/x.zarr"),
    ("gs:/bucket/x", "gs://bucket/x"),
    ("https:/host/x", "https://host/x"),
    ("file:/data/x", "file:///data/x"),
    ("icechunk+s3:/bucket/x", "icechunk+s3://bucket/x"),
    ("simplecache::s3:/bucket/x", "simplecache::s3://bucket/x"),
    ("s3:/me:secret@bucket/x", "s3://bucket/x"),
]


@pytest.mark.parametrize("name", [*READERS, *WRITERS])
@pytest.mark.usefixtures("home")
def test_a_url_with_one_slash_is_refused_with_the_one_that_is_meant(name: str) -> None:
    for given, meant in ONE_SLASH:
        with pytest.raises(OptionError, match=f"write '{re.escape(meant)}'") as caught:
            (READERS | WRITERS)[name](lambda _, given=given: given)
        assert ("as text" in str(caught.value)) == isinstance(given, Path)
        assert os.listdir() == []


@pytest.mark.parametrize("name", ["a:/x", "./s3:/x", "~nobody-of-this-name", "x:y"])
@pytest.mark.usefixtures("home")
def test_other_names_are_paths_as_they_stand(name: str) -> None:
    mnist_zarr.write_zarr(DIGITS, name)
    assert mnist_zarr.open_store(name).sizes["sample"] == 40
    assert os.listdir() == [os.path.normpath(name).split("/")[0]]


WRONG: dict[str, Any] = {
    "None": None,
    "number": 3,
    "complex": 3 + 0j,
    "bytes": b"a.zarr",
    "path": "../home/a.zarr",
    "Path": Path("../home/a.zarr"),
    "list of paths": ["../home/a.zarr"],
    "dict": {"a": 1},
    "array": IMAGES,
    "strings": np.array(["a", "b"]),
    "DataArray": DIGITS.image,
    "Dataset": DIGITS,
    "empty Dataset": xr.Dataset(),
    "text file": io.StringIO(),
}
# By the public name and the argument that is wrong.
DOORS: dict[str, Callable[[Any], Any]] = {
    "build target": lambda wrong: mnist_zarr.build(wrong, DIGITS),
    "build source": lambda wrong: mnist_zarr.build(MemoryStore(), wrong),
    "build labels": lambda wrong: mnist_zarr.build(MemoryStore(), IMAGE_FILE, labels=wrong),
    "build source_options": lambda wrong: mnist_zarr.build(
        MemoryStore(), "memory://x", source_options=wrong
    ),
    "open_dataset name": mnist_zarr.open_dataset,
    **{
        f"make_dataset {argument}": lambda wrong, argument=argument: mnist_zarr.make_dataset(  # type: ignore[misc]
            **{"image": None, argument: wrong}
        )
        for argument in ("image", "label", "split", "source_index")
    },
    "class_attrs values": lambda wrong: mnist_zarr.class_attrs(wrong, ["a", "b"]),
    "class_attrs names": lambda wrong: mnist_zarr.class_attrs([0, 1], wrong),
    "select ds": lambda wrong: mnist_zarr.select(wrong, label=1),
    "select label": lambda wrong: mnist_zarr.select(DIGITS, label=wrong),
    "select range": lambda wrong: mnist_zarr.select(DIGITS, label=slice(0, wrong)),
    "select split": lambda wrong: mnist_zarr.select(DIGITS, split=wrong),
    "exclude ds": lambda wrong: mnist_zarr.exclude(wrong, label=1),
    "exclude label": lambda wrong: mnist_zarr.exclude(DIGITS, label=wrong),
    "rescale ds": lambda wrong: mnist_zarr.rescale(wrong),
    "rescale low": lambda wrong: mnist_zarr.rescale(DIGITS, wrong),
    "rescale dtype": lambda wrong: mnist_zarr.rescale(DIGITS, dtype=wrong),
    "standardize ds": lambda wrong: mnist_zarr.standardize(wrong),
    "standardize mean": lambda wrong: mnist_zarr.standardize(DIGITS, wrong, 1),
    "batches ds": lambda wrong: mnist_zarr.batches(wrong),
    **{
        f"batches {option}": lambda wrong, option=option: mnist_zarr.batches(  # type: ignore[misc]
            DIGITS, **{option: wrong}
        )
        for option in ("size", "seed", "window", "part", "coords")
    },
    "open_pictures folder": lambda wrong: mnist_zarr.open_pictures(wrong),
    **{
        f"open_pictures {option}": lambda wrong, option=option: mnist_zarr.open_pictures(  # type: ignore[misc]
            "../home/pictures", **{option: wrong}
        )
        for option in ("size", "mode", "fit")
    },
    "load source": lambda wrong: mnist_zarr.load(wrong),
    "stratified_split ds": lambda wrong: mnist_zarr.stratified_split(wrong),
    "stratified_split test_size": lambda wrong: mnist_zarr.stratified_split(DIGITS, wrong),
    "join_writers ds": lambda wrong: mnist_zarr.join_writers(wrong),
    "read_idx source": lambda wrong: mnist_zarr.read_idx(wrong),
    "read_idx storage_options": lambda wrong: mnist_zarr.read_idx(
        "memory://x", storage_options=wrong
    ),
    "write_idx array": lambda wrong: mnist_zarr.write_idx(wrong, io.BytesIO()),
    "write_idx target": lambda wrong: mnist_zarr.write_idx(IMAGES, wrong),
    "open_idx source": lambda wrong: mnist_zarr.open_idx(wrong),
    "open_idx labels": lambda wrong: mnist_zarr.open_idx(
        io.BytesIO(bytes.fromhex("00000803 00000001 00000001 00000001 00")), labels=wrong
    ),
    "write_idx_files ds": lambda wrong: mnist_zarr.write_idx_files(wrong, "idx"),
    "write_idx_files folder": lambda wrong: mnist_zarr.write_idx_files(DIGITS, wrong),
    "open_npz source": lambda wrong: mnist_zarr.open_npz(wrong),
    "write_npz ds": lambda wrong: mnist_zarr.write_npz(wrong, "a.npz", overwrite=True),
    "write_npz path": lambda wrong: mnist_zarr.write_npz(DIGITS, wrong),
    "publish store": lambda wrong: mnist_zarr.publish(wrong, MemoryStore()),
    "publish target": lambda wrong: mnist_zarr.publish("../home/a.zarr", wrong),
    "publish public_url": lambda wrong: mnist_zarr.publish(
        "../home/a.zarr", MemoryStore(), public_url=wrong
    ),
    **{
        f"plot {drawing}": lambda wrong, drawing=drawing: getattr(mnist_zarr.plot, drawing)(wrong)  # type: ignore[misc]
        for drawing in ("samples", "one_per_class", "class_balance", "mean_images", "contact_sheet")
    },
    "plot rows": lambda wrong: mnist_zarr.plot.samples(DIGITS, rows=wrong),
    "plot columns": lambda wrong: mnist_zarr.plot.contact_sheet(DIGITS, columns=wrong),
    "plot figure": lambda wrong: mnist_zarr.plot.save_figure(wrong, "x.png"),
    "plot target": lambda wrong: mnist_zarr.plot.save_figure(
        mnist_zarr.plot.samples(DIGITS).figure, wrong
    ),
    "open_store target": lambda wrong: mnist_zarr.open_store(wrong),
    "open_store chunks": lambda wrong: mnist_zarr.open_store("../home/a.zarr", chunks=wrong),
    "open_store storage_options": lambda wrong: mnist_zarr.open_store(
        "memory://x", storage_options=wrong
    ),
    "summarize target": lambda wrong: mnist_zarr.summarize(wrong),
    "verify target": lambda wrong: mnist_zarr.verify(wrong),
    "update target": lambda wrong: mnist_zarr.update(wrong, lambda ds: ds),
    "update change": lambda wrong: mnist_zarr.update("../home/a.zarr", wrong),
    "update Dataset": lambda wrong: mnist_zarr.update("../home/a.zarr", lambda _: wrong),
    "append target": lambda wrong: mnist_zarr.append(wrong, DIGITS),
    "append ds": lambda wrong: mnist_zarr.append("../home/a.zarr", wrong),
    "write_zarr ds": lambda wrong: mnist_zarr.write_zarr(wrong, MemoryStore()),
    "write_zarr target": lambda wrong: mnist_zarr.write_zarr(DIGITS, wrong),
    **{
        f"write_zarr {option}": lambda wrong, option=option: mnist_zarr.write_zarr(  # type: ignore[misc]
            DIGITS, MemoryStore(), **{option: wrong}
        )
        for option in (
            *("order", "chunk_bytes", "shard_bytes", "codec", "level", "zarr_format", "rescale"),
            "storage_options",
        )
    },
}
# One without arguments, one that asks a server, and modules.
OTHERS = {"describe_catalog", "open_openml", "errors", "schema"}


def test_every_public_function_is_given_wrong_things() -> None:
    doors = {door.split()[0] for door in DOORS}
    assert doors == set(vars(mnist_zarr)["__all__"]) - OTHERS


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.usefixtures("home")
def test_wrong_things_work_or_raise_an_error_of_ours(door: str) -> None:
    said = [error for wrong in WRONG.values() if (error := error_of(DOORS[door], wrong))]
    assert all(map(str, said))
    assert len(said) >= len(WRONG) // 2


def error_of(door: Callable[[Any], Any], wrong: Any) -> MnistZarrError | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            door(wrong)
    except MnistZarrError as error:
        return error
    return None


@pytest.mark.parametrize("wrong", ["a path", "a DataArray"])
def test_what_is_no_dataset_is_refused_with_the_way_to_get_one(wrong: str) -> None:
    given: Any = "m.zarr" if wrong == "a path" else DIGITS.image
    remedy = "open_store" if wrong == "a path" else r"\.to_dataset"
    for act in (mnist_zarr.stratified_split, lambda ds: mnist_zarr.select(ds, label=1)):
        with pytest.raises(MnistZarrError, match=f"expected an xarray.Dataset, got .*{remedy}"):
            act(given)


def parameters_of_commands() -> set[str]:
    return {
        str(param.name)
        for command in main.commands.values()
        for param in command.params
        if isinstance(param, click.Option)
    }


def test_messages_have_every_parameter_that_is_an_option_in_backticks() -> None:
    words = {name for name in parameters_of_commands() if "_" in name}
    words |= {f"{name}=" for name in parameters_of_commands()}
    assert {"overwrite=", "zarr_format=", "chunk_bytes", "storage_options"} <= words
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            for text in texts_raised(node):
                outside = text.split("`")[::2]  # of which the odd ones stand in backticks
                found = [word for word in words for part in outside if word in part]
                assert not found, (module.name, text)


def texts_raised(node: ast.AST) -> list[str]:
    """Return the texts in the call of an error; ``{}`` stands for what is put in."""
    is_error = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error")
    if not is_error:
        return []
    formatted = [
        "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in text.values)
        for text in ast.walk(node)
        if isinstance(text, ast.JoinedStr)
    ]
    plain = [text.value for text in ast.iter_child_nodes(node) if isinstance(text, ast.Constant)]
    return formatted + [text for text in plain if isinstance(text, str)]
