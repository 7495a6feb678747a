"""Processes to kill, forked from one that has imported what they need."""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
# A process has one server, so that this is one list for all modules of tests. What cannot be
# imported is passed over without a word, and then every child imports it: that takes seconds.
FORKS.set_forkserver_preload(
    [
        "tests.promises.test_interruption",
        "tests.promises.test_two_writers",
        "s3fs",
        "adlfs",
        "gcsfs",
    ]
)
