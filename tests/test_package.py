"""The package as a whole: its weight at import, its public names."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest

import mnist_zarr
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import digits

PACKAGE = Path(mnist_zarr.__file__).parent


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, mnist_zarr; "
        "print(sorted({'xarray', 'numpy', 'zarr', 'dask', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["info"], ["plot", "--output", "digits.png"]])
def test_what_needs_no_dask_does_not_import_it(arguments: list[str], tmp_path: Path) -> None:
    write_zarr(digits(), tmp_path / "d.zarr")
    code = (
        "import sys; from mnist_zarr.cli import main; "
        "main(sys.argv[1:], standalone_mode=False); "
        "assert not {'dask', 'distributed'} & sys.modules.keys()"
    )
    command, *options = arguments
    subprocess.run(
        [sys.executable, "-c", code, command, "d.zarr", *options], cwd=tmp_path, check=True
    )


def public_names() -> list[str]:
    names: list[str] = vars(mnist_zarr)["__all__"]
    return names


def test_every_public_name_is_there_and_documented() -> None:
    for name in public_names():
        assert getattr(mnist_zarr, name).__doc__
    assert set(public_names()) <= set(dir(mnist_zarr))


def test_names_are_there_in_a_fresh_process_and_nothing_else_shows() -> None:
    code = (
        "import mnist_zarr; shown = dir(mnist_zarr); modules = (mnist_zarr.errors, "
        "mnist_zarr.schema, mnist_zarr.plot); mnist_zarr.class_attrs; mnist_zarr.make_dataset; "
        "print(mnist_zarr.__version__); assert dir(mnist_zarr) == shown == mnist_zarr.__all__; "
        "print(*(name for module in modules for name in dir(module)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version_, names = done.stdout.splitlines()
    assert version_ == version("mnist-zarr")
    assert {"SchemaError", "SAMPLE", "make_dataset", "samples"} <= set(names.split())
    assert not {"np", "os", "annotations", "Any", "missing_extra", "COLOR_MAP"} & set(names.split())


def test_xarray_finds_the_engine() -> None:
    (engine,) = [e for e in entry_points(group="xarray.backends") if e.name == "idx"]
    assert engine.value == "mnist_zarr.formats.idx_engine:IdxBackendEntrypoint"


def test_type_hints_and_the_bundled_files_are_shipped() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert len(list((PACKAGE / "data").glob("*-ubyte.gz"))) == 4
    assert "CC BY-SA 3.0" in (PACKAGE / "data" / "README.md").read_text() or (
        "Attribution-Share Alike 3.0" in (PACKAGE / "data" / "README.md").read_text()
    )


def test_floors_are_declared_for_every_dependency() -> None:
    core = [line for line in requires("mnist-zarr") or [] if "extra ==" not in line]
    assert len(core) >= 9
    assert all(">=" in line for line in core)


def test_without_pytorch_its_module_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['torch'] = None; import mnist_zarr.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "mnist_zarr.torch needs PyTorch: pip install 'mnist-zarr[torch]'" in done.stderr
