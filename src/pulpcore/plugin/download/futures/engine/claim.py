"""Which run a download, a writer or a validation belongs to.

Two runs that share a writer would publish a mixture. So each run claims what it uses, and a second
run that wants the same meanwhile fails. An interrupt may come between any two bytecodes, so nothing
here depends on a ``finally`` that runs: whether the owner still runs is asked of its generator,
whose state the interpreter keeps. What an interrupted run did not release is free all the same.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

# By the id of what is claimed. An id is not given to another object while the claim holds this one.
_owners: dict[int, Claims] = {}


class Claims:
    """What one run uses, and nobody else meanwhile.

    Attributes:
        heirs (dict[int, Claims]): Who claimed next what this run had not released when it was
            interrupted.
    """

    __slots__ = ("_held", "_steps", "heirs")

    def __init__(self, steps: Iterator[Any]) -> None:
        """Make claims to nothing.

        Args:
            steps: The run, a generator. The claims end with it, if they were not released before.
        """
        # Weak: a run that nobody goes on with must not be kept by what it claimed.
        self._steps = weakref.ref(steps)
        self._held: dict[int, object] = {}
        self.heirs: dict[int, Claims] = {}

    @property
    def is_live(self) -> bool:
        """Whether the run has begun and not ended."""
        steps: Any = self._steps()
        return steps is not None and (steps.gi_running or steps.gi_suspended)

    def __contains__(self, thing: object) -> bool:
        """Whether the run has claimed an object."""
        return id(thing) in self._held

    def add(self, things: Iterable[object]) -> object:
        """Claim objects. The run must be executing.

        Args:
            things: The objects.

        Returns:
            The first one that another run has; None if this run has them all.
        """
        held = self._held
        for thing in things:
            key = id(thing)
            # Before it is claimed, so that the id stays this object's.
            held[key] = thing
            owner = _owners.setdefault(key, self)
            while owner is not self:
                if owner.is_live:
                    del held[key]
                    return thing
                owner = owner.heirs.setdefault(key, self)
                _owners[key] = owner
        return None

    def keep(self, things: Iterable[object]) -> None:
        """Release what is not among some objects.

        Args:
            things: The objects.
        """
        kept = set(map(id, things))
        for key in self._held.keys() - kept:
            del _owners[key]
            del self._held[key]

    def release(self) -> None:
        """Release everything. The run must be executing, so that nobody else has claimed it."""
        for key in self._held:
            del _owners[key]
        self._held.clear()
