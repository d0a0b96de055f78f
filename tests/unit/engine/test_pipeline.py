"""Tests of what is known of pipelining: how deep it goes, and whether a host deals with it."""

import pytest

from pulpcore.plugin.download.futures.engine.pipeline import REST, Depth, Health
from pulpcore.plugin.download.futures.engine.protocol import Protocol


@pytest.mark.parametrize(
    ("number", "depth"), [(None, (8, 0.005)), (1, None), (2, (2, -1.0)), (20, (20, -1.0))]
)
def test_depth(number, depth):
    """None means up to 8 for round trips above 5 ms, 1 means off, others apply to any host."""
    assert Depth.of(number) == depth


def test_health():
    """If a host ends two trains in a row, it gets no more trains."""
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
    """A host that was too near for pipelining is measured again after a second."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    health = Health()
    assert not health.is_resting
    health.rest()
    assert health.is_resting
    now[0] += REST
    assert not health.is_resting


def test_protocol():
    """By default a protocol pipelines nothing."""
    assert Protocol().pipelined(None, Health()) is None
