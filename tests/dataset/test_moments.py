"""Mean and standard deviation in one pass, however the values are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_zarr.dataset import blocks, moments
from mnist_zarr.dataset.moments import mean_and_std
from mnist_zarr.errors import SchemaError


@given(
    values=hnp.arrays(
        st.sampled_from(["f4", "f8", "u1", "i2"]),
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=8),
        elements=st.integers(0, 100),  # sums of which floats hold
        fill=st.nothing(),
    ),
    chunk=st.none() | st.integers(1, 8),
    piece=st.integers(1, 20),
    block=st.integers(1, 100),
)
def test_the_moments_of_pieces_add_up_to_those_of_the_whole(
    values: npt.NDArray[Any], chunk: int | None, piece: int, block: int
) -> None:
    variable = xr.Variable([f"dim_{axis}" for axis in range(values.ndim)], values)
    if chunk is not None:
        variable = variable.chunk(chunk)
    exact = values.astype(np.float64)
    for per_pixel, axis in ((False, None), (True, 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moments, "PIECE_VALUES", piece)
            patch.setattr(blocks, "BLOCK_BYTES", block)
            if not exact.std(axis).any():
                with pytest.raises(SchemaError, match=r"all values are \d+, so the"):
                    mean_and_std(variable, per_pixel=per_pixel)
                continue
            mean, std = mean_and_std(variable, per_pixel=per_pixel)
        assert mean.shape == std.shape == (values.shape[1:] if per_pixel else ())
        np.testing.assert_allclose(mean, exact.mean(axis), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(std, exact.std(axis), rtol=1e-6, atol=1e-6)
