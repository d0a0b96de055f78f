"""Tests of when a train begins."""

import pytest

from pulpcore.plugin.download.futures.engine.pipeline import Depth
from pulpcore.plugin.download.futures.pool.train import Trains
from pulpcore.plugin.download.futures.waiting.threads import Workers

THREADS = 2


class Run:
    """A run that asks once whether it is to be held. It notes whether its request was asked for."""

    def __init__(self, may_be_pipelined):
        self.may_be_pipelined = may_be_pipelined
        self.is_asked = False

    def go_on(self, hold):
        """Ask whether the run is to be held."""
        assert not hold(self)

    @property
    def request(self):
        """Note that it was asked for. It may not be pipelined after all."""
        self.is_asked = True


@pytest.mark.parametrize(
    ("may_be_pipelined", "queued", "is_asked"),
    [(True, THREADS, True), (True, THREADS - 1, False), (False, THREADS, False)],
)
def test_not_worth_it(monkeypatch, may_be_pipelined, queued, is_asked):
    """A request is prepared for a train only if there are others to send with it."""
    monkeypatch.setattr(Workers, "queued", queued)
    trains, run = Trains(Depth(8, 0.0), THREADS), Run(may_be_pipelined)
    trains.run(run, Workers(THREADS, "idle"))
    assert run.is_asked == is_asked
    assert len(trains) == 0
