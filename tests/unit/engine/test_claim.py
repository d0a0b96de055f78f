"""Tests of claims, by which a run keeps its writer and validations from other runs."""

import gc

import pytest

from pulpcore.plugin.download.futures.engine import claim
from pulpcore.plugin.download.futures.engine.claim import Claims


class Runner:
    """A run that claims what the test says, and can be abandoned at any moment."""

    def __init__(self):
        self.steps = self._run()
        self.claims = Claims(self.steps)

    def _run(self):
        things = yield
        while True:
            things = yield self.claims.add(things)

    def start(self):
        """Start, and return itself."""
        next(self.steps)
        return self

    def add(self, *things):
        """Claim things. Return those that another run has."""
        return self.steps.send(things)

    def interrupt(self):
        """Abandon the run without clean-up."""
        with pytest.raises(KeyboardInterrupt):
            self.steps.throw(KeyboardInterrupt())


@pytest.fixture(autouse=True)
def claims_are_cleared():
    """Remove the claims that the test leaves in the module, and none of an earlier test's runs.

    Those may still be ended by the garbage collector, and then release their claims themselves.
    """
    before = set(claim._owners)
    yield
    for key in set(claim._owners) - before:
        del claim._owners[key]


def test_one_at_a_time():
    """A claimed object is refused to another run, which is told so, but not to the run itself."""
    one, other = Runner().start(), Runner().start()
    things = object(), object()
    assert one.add(things[1]) is None
    assert one.add(things[1]) is None
    assert other.add(*things) is things[1]
    assert one.claims._held.keys() == {id(things[1])}


def test_equal_is_not_the_same():
    """Claims compare objects by identity, whether they are hashable or not."""
    assert Runner().start().add([]) is None
    assert Runner().start().add([]) is None


def test_released():
    """Another run may claim a released object, but not one that was kept."""
    one, other = Runner().start(), Runner().start()
    kept, left = object(), object()
    one.add(kept, left)
    one.claims.keep([kept])
    assert other.add(left) is None
    assert other.add(kept) is kept
    one.claims.release()
    assert other.add(kept) is None


def test_a_run_that_was_interrupted_has_nothing():
    """The claims of an abandoned run end with it, and another run may take the objects."""
    thing = object()
    first, second, third = Runner().start(), Runner().start(), Runner().start()
    first.add(thing)
    first.interrupt()
    assert not first.claims.is_live
    assert second.add(thing) is None
    assert third.add(thing) is thing
    second.interrupt()
    assert third.add(thing) is None
    third.claims.release()
    assert id(thing) not in claim._owners


def test_of_two_that_find_it_dead_one_gets_it():
    """If two runs find the same dead owner at once, only one gets the object."""
    thing = object()
    dead, winner, loser = Runner().start(), Runner().start(), Runner().start()
    dead.add(thing)
    dead.interrupt()
    winner.add(thing)
    # The state that the loser saw, a moment before the winner wrote.
    claim._owners[id(thing)] = dead.claims
    assert loser.add(thing) is thing


def test_an_id_that_is_used_again():
    """An object that reuses the id of a freed, claimed object is unclaimed."""
    first = Runner().start()
    first.add(object())
    key = next(iter(first.claims._held))
    first.interrupt()
    del first
    gc.collect()
    assert claim._owners[key].is_live is False


def test_not_begun():
    """A run that was made but not started doesn't count as running."""
    assert not Runner().claims.is_live
