"""The command line of the benchmark."""

# ruff: noqa: T201 - a script: it prints
import argparse
import json
import sys
from pathlib import Path

from benchmarks import bench, report
from benchmarks.works import PEERS, WORKS

ROUNDS = 5


def main() -> None:
    """Run the benchmark."""
    works = {work.name: work for work in WORKS}
    parser = argparse.ArgumentParser(
        prog="tox -e bench --",
        description="Download the same files by this library and by others, and compare.",
    )
    parser.add_argument("--rounds", type=int, help=f"how often ({ROUNDS}; 1 if quick)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        choices=[*works, *PEERS],
        help=f"a work or a peer, again for more; works: {', '.join(works)}; "
        f"peers: {', '.join(PEERS)}",
    )
    parser.add_argument("--quick", action="store_true", help="little work, to see that all runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    if rounds < 1:
        parser.error("--rounds must be 1 or more")
    chosen = [works[name] for name in works if name in options.only] or list(WORKS)
    if options.quick:
        chosen = [work.small() for work in chosen]
    peers = [name for name in options.only if name in PEERS]
    try:
        results = bench.run(chosen, rounds, lambda line: print(line, file=sys.stderr), peers)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    results["quick"] = options.quick
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.text(results))


if __name__ == "__main__":
    main()
