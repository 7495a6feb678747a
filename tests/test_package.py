"""The package as a whole: its layers, its weight at import, its public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points, requires
from pathlib import Path

import pytest

import mnist_zarr

PACKAGE = Path(mnist_zarr.__file__).parent

# A module may import those of the layers above it, and none of its own layer, except where
# two stand in one line in the order in which they may.
LAYERS = (
    ("errors",),
    ("croissant", "files", "plan", "pool", "schema", "blocks", "progress", "table"),
    ("bucket", "content", "repository"),
    ("archive", "snapshot"),
    ("local_pipeline", "stored_rows", "workshop"),
    ("zarrs_pipeline",),
    ("download", "idx", "npy", "openml", "pairs", "storage", "template", "zip_source"),
    ("backend", "counts", "entries", "reader", "selection"),
    ("elementwise", "qmnist"),
    ("scaling",),
    ("npz",),
    ("catalog", "writer", "plot", "summary", "transform", "idx_folder"),
    ("builder",),
    ("publication", "verification"),
    ("__init__",),
    ("cli",),
    ("__main__",),
)
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}


def imported_modules(path: Path) -> set[str]:
    """Return which of our modules a module imports, hidden imports inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            base, *rest = node.module.split(".")
            if base == "mnist_zarr":
                found |= set(rest[:1]) or {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {(name[1:] or ["__init__"])[0] for name in names if name[0] == "mnist_zarr"}
    return found


def test_every_module_has_its_layer() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(LAYER_OF)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_imports_go_up_the_layers_only(path: Path) -> None:
    for module in imported_modules(path):
        assert LAYER_OF[module] < LAYER_OF[path.stem], f"{path.stem} imports {module}"


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
    assert engine.value == "mnist_zarr.backend:IdxBackendEntrypoint"


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
