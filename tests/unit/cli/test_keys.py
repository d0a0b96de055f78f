"""Tests of the set of keys that takes little memory."""

import random

from pulpcore.plugin.download.futures.cli.keys import Keys, key_of


def test_a_set():
    """The set has exactly the keys that were added, also if several share a slot."""
    keys, seen, chance = Keys(), set(), random.Random(1)
    for _ in range(5000):
        key = chance.choice([chance.randrange(1, 2**64), chance.randrange(1, 2000) << 32])
        assert (key in keys) == (key in seen)
        assert keys.add(key) == (key not in seen)
        seen.add(key)
    assert all(key in keys for key in seen)


def test_keys_differ():
    """The same text, divided in different places, gives different keys."""
    assert len({key_of("a", "bc"), key_of("ab", "c"), key_of("abc"), key_of("a", "b", "c")}) == 4
    assert key_of("\udcff") != key_of("\udcfe")
