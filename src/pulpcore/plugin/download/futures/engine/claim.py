"""Claims: they prevent two runs from using the same download, writer or validation.

Two runs that share a writer would publish a mixture of both contents. So each run claims the
objects that it uses, and a second run that needs one of them at the same time fails.

KeyboardInterrupt may occur between any two bytecodes, so a ``finally`` block can't guarantee that
claims are released. Instead, a claim is valid only while the generator of the owner's run is alive,
whose state the interpreter maintains. So an interrupted run that released nothing blocks no other.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator
from typing import Any

# The owner of each claimed object, by the object's id. The claim keeps a reference to the object,
# so that Python can't reuse the id.
_owners: dict[int, Claims] = {}


class Claims:
    """The objects that one run uses exclusively.

    Attributes:
        successors (dict[int, Claims]): The next owner of each object that this run did not release,
            because it was interrupted.
    """

    __slots__ = ("_held", "_steps", "successors")

    def __init__(self, steps: Iterator[Any]) -> None:
        """Start with no claims.

        Args:
            steps: The generator of the run. The claims end with it at the latest.
        """
        # A weak reference, so that the claims don't keep an abandoned run alive.
        self._steps = weakref.ref(steps)
        self._held: dict[int, object] = {}
        self.successors: dict[int, Claims] = {}

    @property
    def is_live(self) -> bool:
        """Whether the generator was started and hasn't ended."""
        steps: Any = self._steps()
        # Without the interpreter lock, its thread may resume it between two of these questions. To
        # be missed by all four, it would have to be resumed, stopped and resumed again meanwhile.
        return steps is not None and (
            steps.gi_running or steps.gi_suspended or steps.gi_running or steps.gi_suspended
        )

    def add(self, things: Collection[object]) -> object:
        """Claim objects. Only the run itself may call this, while it executes.

        Args:
            things: The objects.

        Returns:
            The first object that another run has claimed; None if this run has claimed them all.
        """
        held = self._held
        for key, thing in zip(map(id, things), things, strict=True):
            # Keep a reference before claiming, so that Python can't reuse the id.
            held[key] = thing
            owner = _owners.setdefault(key, self)
            while owner is not self:
                if owner.is_live:
                    del held[key]
                    return thing
                owner = owner.successors.setdefault(key, self)
                _owners[key] = owner
        return None

    def keep(self, things: Iterable[object]) -> None:
        """Release all objects except the given ones.

        Args:
            things: The objects.
        """
        kept = set(map(id, things))
        for key in self._held.keys() - kept:
            del _owners[key]
            del self._held[key]

    def release(self) -> None:
        """Release all objects. Only the run itself may call this, while it executes."""
        for key in self._held:
            del _owners[key]
        self._held = {}
