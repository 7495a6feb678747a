"""One small store in a bucket, written by us and read by plain xarray."""

from __future__ import annotations

from typing import Any

import xarray as xr
from zarr.storage import ObjectStore

from mnist_zarr.stores.bucket import BucketStore
from mnist_zarr.stores.keys import keys_of
from mnist_zarr.writing.writer import write_zarr
from tests.support.digits import square_digits
from tests.support.object_server import BUCKET, KEYS, S3Server
from tests.support.partners import partner

URL = f"s3://{BUCKET}/deep/t.zarr"
N_SAMPLES, N_CHUNKS = 200, 20
CHUNK_BYTES = 160


def write_to_bucket(s3: S3Server, ds: xr.Dataset | None = None, **options: Any) -> None:
    """Write to ``URL``, in chunks of ten images."""
    ds = square_digits(N_SAMPLES) if ds is None else ds
    write_zarr(ds, URL, storage_options=s3.options, **{"chunk_bytes": CHUNK_BYTES, **options})


def open_plainly(s3: S3Server) -> xr.Dataset:
    """Open ``URL`` as anybody does, without a key."""
    ds: xr.Dataset = xr.open_zarr(URL, storage_options=s3.public_options, chunks=None)
    return ds


def keys_in_bucket(s3: S3Server) -> set[str]:
    """Return the keys of all objects under ``URL``."""
    return keys_of(BucketStore.from_url(URL, s3.options))


def store_of_obstore(s3: S3Server) -> ObjectStore[Any]:
    """Return what is under ``URL`` as a store of obstore."""
    return ObjectStore(
        partner("obstore.store").S3Store(
            BUCKET,
            prefix="deep/t.zarr",
            endpoint=s3.address,
            region="us-east-1",
            access_key_id=KEYS["key"],
            secret_access_key=KEYS["secret"],
            client_options={"allow_http": True},
            virtual_hosted_style_request=False,
        )
    )
