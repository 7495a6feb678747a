"""Who may write at a place: the root document belongs to one build, and is renewed while it lives.

``zarr.json`` is absent, or a finished store, or the lease of a build: a document that nothing
opens. Every step from one to the next is a write on the condition that the document is as the
build knows it: to take the place, to renew the lease, to put the finished store there. So of two
builds one loses at the very step that would have mixed them, whenever it wakes up.

A build that fails, or is interrupted, ends its lease. One that was killed does not: whoever comes
next waits, and takes over if the same lease lies there for ``LEASE_SECONDS`` of its own clock;
clocks of two machines are never compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from mnist_zarr.errors import StoreError, TargetBusyError
from mnist_zarr.files.urls import name_failures
from mnist_zarr.stores.keys import ROOT, UNFINISHED, sync, unfinished_by
from mnist_zarr.stores.objects import (
    NotComparedError,
    ObjectChangedError,
    Objects,
    Version,
)

logger = logging.getLogger(__name__)

# How long a build may be silent before another one takes its place.
LEASE_SECONDS = 30.0
RENEW_SECONDS = 10.0
# A build that has not renewed its lease for so long does it before it writes anything else.
TRUST_SECONDS = 20.0
# How long a copy of a lease, on the worker of a cluster, believes that it is still held.
COPY_TRUST_SECONDS = 1.0
# How often one that waits for another build looks.
LOOK_SECONDS = 1.0

COMMENT = "A Zarr store is being written here. If nobody does, run the same command again."


class Lease:
    """The right of one build to write at a place.

    It can be pickled; a copy only looks whether the build still has it.

    Parameters
    ----------
    objects : Objects
        Those at the place.
    name : str
        What messages call it.

    Attributes
    ----------
    objects : Objects
        The same; if the server turns out to ignore conditions, those that have none.
    """

    def __init__(self, objects: Objects, name: str) -> None:
        self.objects = objects
        self._name = name
        self._build = secrets.token_hex(8)
        self._n_writes = 0
        self._version: Version | None = None
        self._is_held = False
        self._trusted_until = 0.0
        self._lock = asyncio.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"objects": self.objects, "name": self._name, "build": self._build}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["objects"], state["name"])  # type: ignore[misc]
        self._build = state["build"]

    def await_place(self, known: Version) -> Version:
        """Wait until the build whose lease has this version has ended, or can be taken for dead.

        Returns
        -------
        Version
            That of the lease that it has left.

        Raises
        ------
        TargetBusyError
            If it lives, or another one has come.
        """
        since, other = time.monotonic(), self._lease_of_other()
        if not other.get("has_ended"):
            logger.warning(
                "%s: another build has begun here; this one takes over if nothing is heard of it "
                "for %g s",
                self._name,
                LEASE_SECONDS,
            )
        while not other.get("has_ended") and time.monotonic() < since + LEASE_SECONDS:
            time.sleep(LOOK_SECONDS)
            found = sync(self.objects.look(ROOT))
            if found is None or found.version != known:
                other = self._lease_of_other()
                if found is None or not other.get("has_ended"):
                    raise TargetBusyError(
                        f"{self._name}: another build of this target is under way; wait for it, or "
                        "choose another name"
                    )
                known = found.version
        return known

    def _lease_of_other(self) -> Mapping[str, Any]:
        return unfinished_by(sync(self.objects.read(ROOT))) or {}

    async def take(self, known: Version | None) -> None:
        """Take the place, if the root document has this version, or does not exist.

        Raises
        ------
        TargetBusyError
            If another build has been quicker.
        """
        async with self._lock:
            if self._is_held:
                return
            self._version = known
            try:
                await self._write(self._lease())
                with name_failures(self._name, "written"):
                    does_compare = await self.objects.does_compare(ROOT, self._lease())
                if not does_compare:
                    found = await self.objects.look(ROOT)
                    self._version = found and found.version
                    raise NotComparedError("the server ignores conditions")
            except NotComparedError:
                self.objects = self.objects.without_conditions()
                await self._write(self._lease())
            if not (self.objects.compares or self.objects.is_private):
                logger.warning(
                    "%s: cannot be locked, as this kind of store compares nothing before it "
                    "writes; make sure that no other build writes here",
                    self._name,
                )
            self._is_held = True
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(StoreError):  # whoever writes next raises it
                await self.check(afresh=True)

    async def check(self, *, afresh: bool = False) -> None:
        """Check that the place is still this build's, and renew its lease now and then.

        Raises
        ------
        TargetBusyError
            If another build has taken it, or this one has ended.
        """
        began = time.monotonic()
        if began < self._trusted_until and not afresh:
            return
        async with self._lock:
            if self._is_held:
                await self._write(self._lease())
                return
            with name_failures(self._name, "read"):
                lease = unfinished_by(await self.objects.read(ROOT)) or {}
            if lease.get("build") != self._build or lease.get("has_ended"):
                raise self.taken_over()
            self._trusted_until = began + COPY_TRUST_SECONDS

    async def end(self, document: bytes | None) -> None:
        """Put the root document of the finished store in the place of the lease, or nothing.

        Raises
        ------
        TargetBusyError
            If another build has taken the place.
        """
        async with self._lock:
            if self._is_held:
                self._keeper.cancel()
                await self._write(document)
                self._is_held, self._trusted_until = False, 0.0

    async def give_up(self) -> None:
        """Leave the place, with what has been written, to whoever comes next."""
        await self.end(self._lease(has_ended=True))

    def _lease(self, *, has_ended: bool = False) -> bytes:
        self._n_writes += 1  # no two are equal: a store may tell versions by their content
        content = {
            "zarr_format": 3,
            "node_type": UNFINISHED,
            "comment": COMMENT,
            "build": self._build,
            "write": self._n_writes,
            "has_ended": has_ended,
        }
        return json.dumps(content, indent=1).encode()

    async def _write(self, document: bytes | None) -> None:
        """Write the root document, or remove it, if it is as this build has left it."""
        began = time.monotonic()
        with name_failures(self._name, "written"):
            try:
                if not self.objects.compares:
                    await self._compare()
                if document is None:
                    await self.objects.remove(ROOT, self._version)
                else:
                    self._version = await self.objects.put(ROOT, document, self._version)
            except ObjectChangedError as error:
                # Perhaps by this very request, if its answer was lost and it was sent again.
                found = await self.objects.look(ROOT)
                if not await self.objects.holds(ROOT, found, document):
                    self._is_held, self._trusted_until = False, 0.0
                    raise self.taken_over() from error
                self._version = found and found.version
            if not self.objects.compares:
                found = await self.objects.look(ROOT)
                self._version = found and found.version
        self._trusted_until = began + TRUST_SECONDS

    async def _compare(self) -> None:
        found = await self.objects.look(ROOT)
        if (found and found.version) != self._version:
            raise ObjectChangedError(f"{ROOT} has changed")

    def taken_over(self) -> TargetBusyError:
        """Return the error for a place that is not this build's any more."""
        return TargetBusyError(
            f"{self._name}: another build of this target has begun, or ended, since this one "
            "began, and nothing of this one is visible; run it again"
        )
