"""A compact set of hashed texts, for lists of a million files."""

from __future__ import annotations

from array import array
from hashlib import blake2b

_FIRST = 1024


def key_of(*parts: str) -> int:
    """Return a 64-bit hash of some texts. It is never 0.

    Among a million texts, the probability of any collision is about 1 in 37 million.

    Args:
        parts: The texts.
    """
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(text, digest_size=8).digest()) or 1


class Keys:
    """A set of keys. It takes 11 to 32 bytes a key, and a ``set`` about 100.

    It is a hash table with open addressing. A free slot is 0.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._slots = array("Q", bytes(8 * _FIRST))
        self._count = 0

    def add(self, key: int) -> bool:
        """Add a key.

        Args:
            key: The key.

        Returns:
            Whether it was new.
        """
        if not _put(self._slots, key):
            return False
        self._count += 1
        if self._count * 4 > len(self._slots) * 3:
            before, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
            for each in before:
                if each:
                    _put(self._slots, each)
        return True

    def __contains__(self, key: int) -> bool:
        slots = self._slots
        last = len(slots) - 1
        slot = key & last
        while (found := slots[slot]) and found != key:
            slot = (slot + 1) & last
        return bool(found)


def _put(slots: array[int], key: int) -> bool:
    """Put a key into the first free slot from its own. Return False if it is there already."""
    last = len(slots) - 1
    slot = key & last
    while found := slots[slot]:
        if found == key:
            return False
        slot = (slot + 1) & last
    slots[slot] = key
    return True
