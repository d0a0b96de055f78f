"""What a run claims, so that no other run uses it meanwhile."""

import gc

import pytest

from pulpcore.plugin.download.futures.engine import claim
from pulpcore.plugin.download.futures.engine.claim import Claims


class Runner:
    """A run that claims what it is told to, and can be left at any moment."""

    def __init__(self):
        self.steps = self._run()
        self.claims = Claims(self.steps)

    def _run(self):
        things = yield
        while True:
            things = yield self.claims.add(things)

    def start(self):
        """Begin, and return itself."""
        next(self.steps)
        return self

    def add(self, *things):
        """Claim things; what another has."""
        return self.steps.send(things)

    def interrupt(self):
        """Leave it without any clean-up."""
        with pytest.raises(KeyboardInterrupt):
            self.steps.throw(KeyboardInterrupt())


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Let no claim stay behind."""
    yield
    claim._owners.clear()


def test_one_at_a_time():
    """Another run doesn't get what a run has, and is told what; the run itself may ask again."""
    one, other = Runner().start(), Runner().start()
    things = object(), object()
    assert one.add(things[1]) is None
    assert one.add(things[1]) is None
    assert other.add(*things) is things[1]
    assert one.claims._held.keys() == {id(things[1])}


def test_equal_is_not_the_same():
    """What counts is the object, and not whether two are equal or can be hashed."""
    assert Runner().start().add([]) is None
    assert Runner().start().add([]) is None


def test_released():
    """What was released another may have, and what was kept it may not."""
    one, other = Runner().start(), Runner().start()
    kept, left = object(), object()
    one.add(kept, left)
    one.claims.keep([kept])
    assert other.add(left) is None
    assert other.add(kept) is kept
    one.claims.release()
    assert other.add(kept) is None


def test_a_run_that_was_interrupted_has_nothing():
    """A claim ends with its run, also where nothing was released; the next one is as good."""
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
    assert claim._owners == {}


def test_of_two_that_find_it_dead_one_gets_it():
    """Two runs that found the same dead owner at the same time don't both have the object."""
    thing = object()
    dead, winner, loser = Runner().start(), Runner().start(), Runner().start()
    dead.add(thing)
    dead.interrupt()
    winner.add(thing)
    # As the loser saw it, a moment before the winner wrote.
    claim._owners[id(thing)] = dead.claims
    assert loser.add(thing) is thing


def test_an_id_that_is_used_again():
    """An object that has the id of one that was claimed and is gone is free."""
    first = Runner().start()
    first.add(object())
    key = next(iter(first.claims._held))
    first.interrupt()
    del first
    gc.collect()
    assert claim._owners[key].is_live is False


def test_not_begun():
    """A run that was made and not begun is not live."""
    assert not Runner().claims.is_live
