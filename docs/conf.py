"""The documentation site: ``sphinx-build -W docs site``, which needs no network."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes

import mnist_zarr

project = "mnist-zarr"
author = "The mnist-zarr maintainers"
version = release = mnist_zarr.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["tools"]

# Sphinx reads nothing outside its folder.
NOTEBOOKS = "../../notebooks/"  # as pages of the tutorial link to them
for notebook in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb"):
    shutil.copy(notebook, Path(__file__).parent / "tutorial")
# Tests execute the notebooks and compare their outputs with those that are stored and shown.
nb_execution_mode = "off"
nb_merge_streams = True
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings have the types
autodoc_mock_imports = [] if find_spec("torch") else ["torch"]
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = "mnist-zarr"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "github_url": "https://github.com/OWNER/mnist-zarr",
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
}

# Where the references of other projects have a page for each name. An inventory of theirs would
# have to be downloaded to build the site.
REFERENCES = {
    "distributed": "https://distributed.dask.org/en/stable/api.html#{}",
    "matplotlib": "https://matplotlib.org/stable/api/_as_gen/{}.html",
    "numpy": "https://numpy.org/doc/stable/reference/random/generator.html#{}",
    "sklearn": "https://scikit-learn.org/stable/modules/generated/{}.html",
    "xarray": "https://docs.xarray.dev/en/stable/generated/{}.html",
}


def link_elsewhere(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Link a name of another project in a docstring to its reference."""
    name = node.get("reftarget", "")
    page = REFERENCES.get(name.partition(".")[0])
    return page and nodes.reference("", "", content, refuri=page.format(name), internal=False)


def link_copies(app: Any, name: str, source: list[str]) -> None:
    """Link from the tutorial to the copies of the notebooks."""
    if name.startswith("tutorial/"):
        source[0] = source[0].replace(f"]({NOTEBOOKS}", "](")


def setup(app: Any) -> None:
    """Tell Sphinx of them."""
    app.connect("source-read", link_copies)
    app.connect("missing-reference", link_elsewhere)
