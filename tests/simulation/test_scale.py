"""A simulation of many files on many workers: the shipped policies on a virtual clock."""

import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from benchmarks.server import environment
from pulpcore.plugin.download.futures.engine import breaker
from pulpcore.plugin.download.futures.pool import portions
from simulation.model import Load, Simulation
from simulation.replay import Trace

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("good", "failed", "backoff", "tail", "starved")


def run(**values):
    """Simulate a load of 100,000 files."""
    return Simulation(Load(**values)).run()


@pytest.mark.parametrize("workers", [1, 100])
def test_faults(workers):
    """If one request in a hundred fails, no file is lost, and the time is near the best."""
    outcome = run(workers=workers, fault=0.01)
    assert outcome.lost == 0
    assert outcome.requests == pytest.approx(101_000, rel=0.005)
    assert outcome.seconds < 1.3 * outcome.ideal


def test_restarts():
    """Hosts that are down for ten seconds cost no file, even if there are many of them."""
    outcome = run(restarts=0.5, fault=0.001)
    assert outcome.lost == 0
    assert outcome.share("failed") > 0.01


def test_dead_hosts():
    """The circuit breaker bounds the time that dead hosts cost. Only their files are lost."""
    outcome = run(dead=0.005)
    assert outcome.lost == outcome.dead > 500
    # Most were not asked for.
    assert outcome.spared > 0.7 * outcome.lost
    with patch.object(breaker, "FAILURES", 10**9):
        assert run(dead=0.005).seconds > 2 * outcome.seconds


def test_small_chunks():
    """Chunks of a second leave workers idle for much less time than chunks of a quarter."""
    idle = []
    for seconds in (portions.SECONDS, portions.SECONDS / 4):
        with patch.object(portions, "SECONDS", seconds):
            outcome = run(files=50_000)
        idle.append(outcome.share("tail") + outcome.share("starved"))
    assert idle[0] < 0.15
    assert idle[1] > 1.4 * idle[0]


def test_all_time_is_accounted_for():
    """The reported parts of the time add up to the time of all threads."""
    outcome = run(files=10_000, restarts=0.05, outages=0.05, dead=0.05, fault=0.01)
    total = sum(getattr(outcome, name) for name in PARTS)
    assert total == pytest.approx(outcome.seconds * 10 * 4, rel=0.01)


def test_a_recorded_run():
    """Replayed on the virtual clock, a real run on loopback takes its real time."""
    trace = Trace()
    outcome = trace.replay()
    assert outcome.lost == trace.lost == 0
    assert outcome.seconds == pytest.approx(trace.seconds, rel=0.1)
    assert outcome.requests == pytest.approx(trace.requests, rel=0.05)


def test_the_page():
    """The tables on the documentation page are those that the simulation prints."""
    done = subprocess.run(
        [sys.executable, "-m", "simulation.scale", "--files", "200"],
        env=environment(),
        capture_output=True,
        check=True,
        text=True,
        timeout=200,
    )
    titles = [
        re.findall(r"^\.\. list-table:: (.*)$", text, re.MULTILINE)
        for text in (done.stdout, (ROOT / "docs/planning.inc").read_text())
    ]
    assert titles[0] == titles[1] != []
