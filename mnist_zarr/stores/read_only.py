"""What stores have in common that can only be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Self

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store


class ReadOnlyStore(Store):
    """A store to read from."""

    supports_writes = False
    supports_deletes = False
    supports_partial_writes = False
    supports_listing = True

    def __init__(self) -> None:
        super().__init__(read_only=True)

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return the same store, to read from."""
        if not read_only:
            raise NotImplementedError(
                f"with_read_only is not implemented for the {type(self)} store type."
            )
        return self

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for key in self.list():
            if key.startswith(prefix):
                yield key
