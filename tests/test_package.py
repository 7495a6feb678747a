"""The package as a whole: its weight at import, its public names."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, requires
from pathlib import Path

import mnist_zarr

PACKAGE = Path(mnist_zarr.__file__).parent


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, mnist_zarr; "
        "print(sorted({'xarray', 'numpy', 'zarr', 'dask', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def public_names() -> list[str]:
    names: list[str] = vars(mnist_zarr)["__all__"]
    return names


def test_every_public_name_is_there_and_documented() -> None:
    for name in public_names():
        assert getattr(mnist_zarr, name).__doc__
    assert set(public_names()) <= set(dir(mnist_zarr))


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
