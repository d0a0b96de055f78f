"""Simulates many files on many workers, and prints the tables of docs/planning.rst.

``tox -e simulation`` runs it.
"""

# ruff: noqa: T201 - a script: it prints
import argparse
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple
from unittest.mock import patch

from urllib3.util import Retry

from pulpcore.plugin.download.futures.engine import backoff, breaker
from pulpcore.plugin.download.futures.pool import portions, worker
from simulation.model import Load, Outcome, Simulation
from simulation.replay import Trace

FILES = 1_000_000
WORKERS = (1, 10, 100)
FAULTS = (1e-4, 1e-3, 1e-2)
TIMES = "\N{MULTIPLICATION SIGN}"
ILL = {"restarts": 0.05, "outages": 0.01, "dead": 0.005}
"""The shares of hosts that are away for ten seconds, for a minute, and for ever."""

USUAL = Load(workers=10, fault=1e-3, **ILL)


class Variant(NamedTuple):
    """A default with another value.

    Attributes:
        value: For people; an asterisk marks the default.
        load: What differs in the load.
        patches: Name and value of each constant that differs.
    """

    value: str
    load: dict = {}  # noqa: RUF012 - never changed
    patches: tuple = ()


def _retry(total=backoff.DEFAULT.total, factor=backoff.DEFAULT.backoff_factor):
    return {"retry": Retry(total=total, backoff_factor=factor, backoff_max=60)}


def _constants(module, name, values):
    default = getattr(module, name)
    return [
        Variant(
            f"{value:g}{' *' * (value == default)}", patches=((f"{module.__name__}.{name}", value),)
        )
        for value in values
    ]


NEVER = 10**9
VARIANTS = {
    "Seconds in a chunk": [
        Variant(
            f"{value:g}{' *' * (value == portions.SECONDS)}",
            patches=(
                (f"{portions.__name__}.SECONDS", value),
                (f"{worker.__name__}.PATIENCE", 2 * value),
            ),
        )
        for value in (0.25, 0.5, 1, 2, 4, 8)
    ],
    "Chunks for each worker": _constants(portions, "EACH", (1, 2, 3)),
    "Downloads in parallel in a worker": [
        Variant(f"{value}{' *' * (value == 4)}", {"concurrent": value}) for value in (2, 4, 8, 16)
    ],
    "First back-off (seconds)": [
        Variant(f"{value:g}{' *' * (value == 0.4)}", _retry(factor=value))
        for value in (0.1, 0.2, 0.4, 0.8, 1.6)
    ],
    "Retries": [
        Variant(f"{value}{' *' * (value == 6)}", _retry(total=value)) for value in (2, 4, 6, 8)
    ],
    "Failures in a row that open the breaker": [
        *_constants(breaker, "FAILURES", (2, 4, 8, 16, 32)),
        Variant("never", patches=((f"{breaker.__name__}.FAILURES", NEVER),)),
    ],
    "Seconds of failures that open the breaker": _constants(breaker, "SILENCE", (1, 5, 10, 20, 40)),
    "Seconds until the breaker forgets": _constants(breaker, "FORGET", (15, 60, 240, 960)),
}


def run(load: Load, variant: Variant = Variant("")) -> Outcome:  # noqa: B008 - never changed
    """Simulate a load with a variant."""
    with ExitStack() as stack:
        for name, value in variant.patches:
            stack.enter_context(patch(name, value))
        return Simulation(replace(load, **variant.load)).run()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="tox -e simulation --", description=__doc__)
    parser.add_argument("--files", type=int, default=FILES, help=f"how many ({FILES:,})")
    files = parser.parse_args().files
    print(".. Printed by `tox -e simulation`: don't edit.\n")
    with ProcessPoolExecutor() as pool:
        healthy = {
            (workers, fault): pool.submit(run, Load(files, workers=workers, fault=fault))
            for workers in WORKERS
            for fault in (0, *FAULTS)
        }
        ill = {
            (workers, fault): pool.submit(
                run, replace(USUAL, files=files, workers=workers, fault=fault)
            )
            for workers in WORKERS
            for fault in FAULTS
        }
        variants = {
            title: [
                (each.value, pool.submit(run, replace(USUAL, files=files // 10), each))
                for each in all_
            ]
            for title, all_ in VARIANTS.items()
        }
        _print_all(
            files,
            {key: future.result() for key, future in healthy.items()},
            {key: future.result() for key, future in ill.items()},
            {
                title: [(value, future.result()) for value, future in futures]
                for title, futures in variants.items()
            },
        )


def _print_all(files, healthy, ill, variants):
    shown = [f"1 in {round(1 / fault):,}" for fault in FAULTS]
    print(f"{files:,} files of {Load.hosts:,} hosts, {Load.concurrent} downloads in parallel.\n")
    _table(
        "All hosts are up: the time, by the ideal. Columns: how many requests fail.",
        ("Workers", "none", *shown),
        [
            (workers, *(_ratio(healthy[workers, fault]) for fault in (0, *FAULTS)))
            for workers in WORKERS
        ],
    )
    _table(
        "Hosts fail, too: the time, by the ideal. Columns: how many requests fail.",
        ("Workers", *shown),
        [(workers, *(_ratio(ill[workers, fault]) for fault in FAULTS)) for workers in WORKERS],
    )
    _table(
        f"Where the threads' time goes, when hosts fail and {shown[1]} requests fail",
        ("Workers", "Time", "Transfers", "Failed", "Waits", "Uneven"),
        [
            (workers, _time(found.seconds), *_shares(found))
            for workers in WORKERS
            if (found := ill[workers, FAULTS[1]])
        ],
    )
    _table(
        "The files that failed in these runs",
        ("Workers", "Of dead hosts", "Of others", "Without a request"),
        [(workers, *_lost(ill[workers, FAULTS[1]])) for workers in WORKERS],
    )
    for title, found in variants.items():
        _table(
            f"{title} ({USUAL.workers} workers, a tenth of the files; * is the default)",
            ("Value", "Time", "Failed", "Waits", "Uneven", "Lost"),
            [
                (value, _ratio(each), *_shares(each)[1:], f"{each.lost - each.dead:,}")
                for value, each in found
            ],
        )
    trace = Trace()
    replayed = trace.replay()
    _table(
        "A real run on loopback, and the same on the virtual clock",
        ("", "Real", "Replayed"),
        [
            ("Seconds", f"{trace.seconds:.1f}", f"{replayed.seconds:.1f}"),
            ("Requests", f"{trace.requests:,}", f"{replayed.requests:,}"),
            ("Files that failed", trace.lost, replayed.lost),
        ],
    )


def _ratio(outcome):
    return f"{outcome.seconds / outcome.ideal:.2f} {TIMES}"


def _time(seconds):
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _shares(outcome):
    uneven = outcome.share("tail") + outcome.share("starved")
    parts = [*map(outcome.share, ("good", "failed", "backoff")), uneven]
    return [f"{part:.1%}" for part in parts]


def _lost(outcome):
    return [f"{number:,}" for number in (outcome.dead, outcome.lost - outcome.dead, outcome.spared)]


def _table(title, header, rows):
    """Print a table of reStructuredText."""
    print(f".. list-table:: {title}\n   :header-rows: 1\n")
    for row in (header, *rows):
        marks = ("* -", *["  -"] * (len(row) - 1))
        print(
            *(f"   {mark} {cell}".rstrip() for mark, cell in zip(marks, row, strict=True)), sep="\n"
        )
    print()


if __name__ == "__main__":
    main()
