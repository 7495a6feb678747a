"""Formulas applied to every pixel of an array: at once, or when it is read.

A formula sees one value at a time, so that it may as well be applied after samples have been picked
and moved: to a batch in the cache instead of all floats in memory. :func:`without_formulas` takes
the formulas off an array where that is certain to be the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from mnist_zarr.dataset.lazy import LazySamples, MappedSamples, is_lazy, lazy_array, source_and_key

# float64 values to float64 values, each on its own. Must be picklable, and comparable.
Formula = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
# Number of values converted to float64 at a time.
PIECE_VALUES = 1 << 17
# Number of indices looked up at a time: numpy makes a position of eight bytes of each, and these
# stay in the cache.
LOOKED_UP_VALUES = 1 << 15
# What says how a variable is best read, and stays true when its values change.
KEPT_ENCODING = ("preferred_chunks", "seeks_cheaply", "reads_cheaply")
# What dask calls to pick and to join samples: it changes no value.
MOVES = {
    "dask.array.chunk.getitem",
    "dask.array._shuffle._getitem",
    "dask.array._shuffle.concatenate_arrays",
    "_operator.getitem",
}


def map_values(variable: xr.Variable, formula: Formula, dtype: np.dtype[Any]) -> xr.Variable:
    """Apply a formula to every value of a variable.

    Parameters
    ----------
    variable : xarray.Variable
        In memory, of dask, or lazy as xarray opens files without dask; so is
        the result.
    formula : callable
        From float64 values to float64 values.
    dtype : numpy.dtype
        Of the result: its values are rounded to it.

    Returns
    -------
    xarray.Variable
        Of the same dimensions and attributes.
    """
    return map_samples(variable, Elementwise(formula, variable.dtype, dtype), dtype)


def map_samples(
    variable: xr.Variable,
    function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    dtype: np.dtype[Any],
) -> xr.Variable:
    """Apply a function to whole samples, any number of them, as lazily as :func:`map_values`."""
    data: Any
    if variable.chunks is not None:
        data = variable.data.map_blocks(
            function, dtype=dtype, meta=np.empty((0,) * variable.ndim, dtype)
        )
    elif is_lazy(variable):
        data = lazy_array(variable.shape, dtype, MappedSamples(variable, function))
    else:
        data = function(np.asarray(variable.values))
    mapped = xr.Variable(variable.dims, data, variable.attrs)
    mapped.encoding = {
        name: value for name, value in variable.encoding.items() if name in KEPT_ENCODING
    }
    return mapped


@dataclass(frozen=True)
class Elementwise:
    """A formula, the type of what it is applied to and of its result; a piece at a time."""

    formula: Formula
    source_dtype: np.dtype[Any]
    dtype: np.dtype[Any]

    @property
    def __name__(self) -> str:  # by which dask calls its tasks
        return type(self.formula).__name__

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result = np.empty(values.shape, self.dtype)
        flat, flat_result = np.ascontiguousarray(values).reshape(-1), result.reshape(-1)
        if values.dtype.kind in "iu" and values.dtype.itemsize == 1:
            # There are 256 values only: look the results up.
            self._look_up(flat.view(np.uint8), flat_result)
        else:
            with np.errstate(invalid="ignore"):  # a NaN stays one, also one that signals
                for start in range(0, flat.size, PIECE_VALUES):
                    piece = slice(start, start + PIECE_VALUES)
                    flat_result[piece] = self.formula(flat[piece].astype(np.float64))
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return Elementwise, (self.formula, self.source_dtype, self.dtype)  # without the tables

    @functools.cached_property
    def _table(self) -> npt.NDArray[Any]:
        """The results for the bytes 0 to 255."""
        all_values = np.arange(256, dtype=np.uint8).view(self.source_dtype)
        return self.formula(all_values.astype(np.float64)).astype(self.dtype)

    @functools.cached_property
    def _pair_table(self) -> npt.NDArray[Any]:
        """The results for all pairs of bytes, each pair as one element."""
        pairs = np.stack(np.broadcast_arrays(self._table, self._table[:, None]), axis=-1)
        return pairs.reshape(-1).view(self._pair_dtype)

    @property
    def _pair_dtype(self) -> np.dtype[Any]:
        # Bytes that numpy moves as one: it never looks at them as numbers.
        return np.dtype({2: np.uint32, 4: np.uint64, 8: np.complex128}[self.dtype.itemsize])

    def _look_up(self, indices: npt.NDArray[np.uint8], result: npt.NDArray[Any]) -> None:
        table = self._table
        if indices.size >= PIECE_VALUES and indices.size % 2 == 0 and self.dtype.itemsize <= 8:
            # Two neighbours at a time.
            table, result = self._pair_table, result.view(self._pair_dtype)
            indices = indices.view("<u2")
        for start in range(0, indices.size, LOOKED_UP_VALUES):
            piece = slice(start, start + LOOKED_UP_VALUES)
            # Clip changes none of these indices, and avoids the copy that the default mode makes.
            table.take(indices[piece], out=result[piece], mode="clip")


def without_formulas(variable: xr.Variable) -> tuple[xr.Variable, tuple[Elementwise, ...]]:
    """Take formulas off a lazy variable.

    Returns
    -------
    xarray.Variable
        The values before any formula that makes them larger.
    tuple of Elementwise
        Those formulas, in the order in which they give the values of the variable.

    Examples
    --------
    >>> from mnist_zarr.dataset.transform import rescale
    >>> pixels = xr.DataArray(np.zeros((4, 2, 2), "uint8"), dims=("sample", "row", "col"))
    >>> plain, formulas = without_formulas(rescale(pixels.chunk(), 0, 1)[1:].variable)
    >>> plain.dtype, plain.shape, [str(formula.dtype) for formula in formulas]
    (dtype('uint8'), (3, 2, 2), ['float32'])
    """
    taken: tuple[Elementwise, ...] = ()
    while True:
        is_dask = variable.chunks is not None
        found = _last_of_dask(variable) if is_dask else _last_of_lazy(variable)
        if found is None or found[1].source_dtype.itemsize > found[1].dtype.itemsize:
            return variable, taken
        variable, taken = found[0], (found[1], *taken)


def _last_of_lazy(variable: xr.Variable) -> tuple[xr.Variable, Elementwise] | None:
    array, key = source_and_key(variable)
    reader = array.reader if isinstance(array, LazySamples) else None
    if isinstance(reader, MappedSamples) and isinstance(reader.function, Elementwise):
        return reader.variable[key], reader.function
    return None


def _last_of_dask(variable: xr.Variable) -> tuple[xr.Variable, Elementwise] | None:
    """Take the formula off a graph in which samples are only picked and joined after it."""
    # Here, since what needs no dask does not import it.
    import dask.array
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    graph = variable.data.dask
    found: dict[str, Elementwise] = {}
    waiting = [variable.data.name] if isinstance(graph, HighLevelGraph) else []
    while waiting:
        name = waiting.pop()
        formula = _formula_of(graph.layers[name])
        if formula is not None:
            found[name] = formula
        elif graph.dependencies[name] and _only_moves(graph.layers[name]):
            waiting += graph.dependencies[name] - found.keys()
        else:
            return None
    if len(set(found.values())) != 1:
        return None
    layers = dict(graph.layers)
    for name in found:
        (source,) = graph.dependencies[name]
        layers[name] = MaterializedLayer({key: (source, *key[1:]) for key in layers[name]})
    data = variable.data
    formula = next(iter(found.values()))
    # It has the name of the array with the formula: only for a scheduler of its own.
    plain = cast(Any, dask.array.Array)(
        HighLevelGraph(layers, graph.dependencies), data.name, data.chunks, formula.source_dtype
    )
    return xr.Variable(variable.dims, plain), formula


def _formula_of(layer: Any) -> Elementwise | None:
    function = getattr(next(iter(layer.values()), None), "func", None)
    return function if isinstance(function, Elementwise) else None


def _only_moves(layer: Any) -> bool:
    return all(map(_moves, layer.values()))


def _moves(task: Any) -> bool:
    """Whether a task of a graph changes no value."""
    from dask._task_spec import Alias, DataNode

    if isinstance(task, tuple):  # a key, or in older graphs a call
        return isinstance(task[0], str)
    return isinstance(task, Alias | DataNode) or _name_of(getattr(task, "func", None)) in MOVES


def _name_of(function: Any) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', '')}"
