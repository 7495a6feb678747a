"""The findings of a verification."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from mnist_zarr.terminal import printable


@dataclass(frozen=True)
class Problem:
    """Something that is damaged, missing or inconsistent.

    Attributes
    ----------
    place : str
        The key of an object (``image/c/3/0/0``), or the name of a variable.
    what : str
        What is wrong with it.
    """

    place: str
    what: str


@dataclass
class Verification:
    """The findings of :func:`verify`.

    Attributes
    ----------
    store : str
        The name of the store.
    n_objects, n_samples : int
        How many objects the store should have, and the length of ``sample``.
    problems : list of Problem
        Empty if the store is whole.
    confirmed : list of str
        What agrees with a record.
    unchecked : list of str
        What could not be checked, and why.
    """

    store: str
    n_objects: int = 0
    n_samples: int = 0
    problems: list[Problem] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def add_problem(self, place: str, what: str) -> None:
        """Add a problem, unless the place has one."""
        if all(problem.place != place for problem in self.problems):
            self.problems.append(Problem(place, what))

    def to_text(self) -> str:
        """Return the findings as lines for a terminal."""
        count = len(self.problems)
        verdict = f"DAMAGED OR CHANGED, {count:,} {'problem' if count == 1 else 'problems'}"
        if self.is_whole:
            verdict = "whole" if self.confirmed else "complete; nothing is recorded to compare with"
        lines = [
            f"{self.store}: {verdict}",
            f"  {self.n_objects:,} objects, {self.n_samples:,} samples",
            *(f"  {problem.place}: {problem.what}" for problem in self.problems),
            *(f"  confirmed: {line}" for line in self.confirmed),
            *(f"  not checked: {line}" for line in self.unchecked),
        ]
        return "\n".join(map(printable, lines))

    def to_json(self) -> str:
        """Return the findings as one JSON object."""
        return json.dumps({"is_whole": self.is_whole, **asdict(self)}, indent=1)
