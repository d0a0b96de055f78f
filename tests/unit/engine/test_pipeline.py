"""Tests of what is known of pipelining: how deep it goes, and whether a host deals with it."""

import pytest

from pulpcore.plugin.download.futures.engine.pipeline import REST, Depth, Health
from pulpcore.plugin.download.futures.engine.protocol import Protocol


@pytest.mark.parametrize(
    ("number", "depth"), [(None, (8, 0.005)), (1, None), (2, (2, -1.0)), (20, (20, -1.0))]
)
def test_depth(number, depth):
    """None is up to 8 where a round trip takes over 5 ms, 1 is never, others go everywhere."""
    assert Depth.of(number) == depth


def test_health():
    """Two trains in a row that the host ends are enough to send it no more."""
    health = Health()
    health.ended()
    health.answered()
    health.ended()
    assert not health.is_off
    health.ended()
    assert health.is_off


def test_stop():
    """A host that mixes up replies gets no more trains, whatever it answers later."""
    health = Health()
    health.stop()
    health.answered()
    assert health.is_off


def test_rest(monkeypatch):
    """A host that was too near for trains is asked about again after a second."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    health = Health()
    assert not health.is_resting
    health.rest()
    assert health.is_resting
    now[0] += REST
    assert not health.is_resting


def test_protocol():
    """A protocol pipelines nothing, unless it says which requests."""
    assert Protocol().pipelined(None, Health()) is None
