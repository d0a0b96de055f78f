"""Formats the results, for a terminal and as tables for the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.works import TIMES

Results = dict[str, Any]

HEADER = ("", "seconds", "files/s", "CPU/file", "memory")


def text(results: Results) -> str:
    """Format the results for a terminal."""
    lines = []
    for work in results["works"]:
        lines += ["", f"{work['title']} (server: {work['server']})", ""]
        rows = [HEADER, *_peers(work)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
        for first, *others in rows:
            shown = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([f"  {first:<{widths[0]}}", *shown]))
        lines += [
            f"  {'ok' if target['met'] else 'NO'}: {name}: {figure} (target: {expected})"
            if expected
            else f"  {name}: {figure}"
            for target, (_, name, expected, figure, _) in zip(
                work["targets"], _targets(work), strict=True
            )
        ]
    return "\n".join([*_about(results), *lines])


def rst(results: Results) -> str:
    """Format the results as tables of reStructuredText."""
    lines = [".. Generated from performance.json by `tox -e plot`: don't edit.", ""]
    lines += [f"- {line}" for line in _about(results)]
    lines += [
        "",
        "Targets and measurements (median, and range of the rounds):",
        "",
    ]
    header = ("Work", "Figure", "Target", "Measured", "Met")
    lines += _table(header, [row for work in results["works"] for row in _targets(work)])
    for work in results["works"]:
        lines += ["", f"{work['title']}; server: {work['server']}:", ""]
        lines += _table(("Peer", *HEADER[1:]), list(_peers(work)))
    return "\n".join(lines) + "\n"


def rates(work: Results) -> list[tuple[str, float]]:
    """Return the title of each peer of a work, and its files per second."""
    return [
        (peer["title"], median(taken["rate"] for taken in peer["rounds"])) for peer in work["peers"]
    ]


def rate(figure: float) -> str:
    """Format files per second for people."""
    return f"{figure:,.0f}" if figure >= 10 else f"{figure:.2f}"


def _about(results: Results) -> Iterator[str]:
    machine = results["machine"]
    yield (
        f"Machine: {machine['cores']} cores ({machine['cpu']}), {_bytes(machine['memory'])} of "
        f"memory, {machine['system']}; load at the end {machine['load']}"
    )
    yield "Versions: " + ", ".join(f"{name} {what}" for name, what in results["versions"].items())
    yield f"Files written to {results['target']}; medians of {results['rounds']} rounds, in turn"
    if results.get("quick"):
        yield "Quick: so little work that the figures mean nothing"


def _peers(work: Results) -> Iterator[tuple[str, ...]]:
    for peer in work["peers"]:
        seconds, speed, cpu, memory = (
            median(taken[name] for taken in peer["rounds"])
            for name in ("seconds", "rate", "cpu", "memory")
        )
        yield (
            peer["title"],
            f"{seconds:.2f}",
            rate(speed),
            _time(cpu / work["files"]),
            _bytes(memory),
        )


def _targets(work: Results) -> Iterator[tuple[str, ...]]:
    for target in work["targets"]:
        is_ratio = target["unit"] == TIMES
        unit = TIMES if is_ratio else f" {target['unit']}"
        digits = 2 if is_ratio else 1
        figure = f"{target['median']:.{digits}f}{unit}"
        if len(target["figures"]) > 1:
            low, high = min(target["figures"]), max(target["figures"])
            figure += f" ({low:.{digits}f} to {high:.{digits}f})"
        expected, met = "", ""
        if target["least"] is not None:
            expected = f"at least {target['least']:g}{unit}"
        if target["most"] is not None:
            expected = f"at most {target['most']:g}{unit}"
        if expected:
            met = "yes" if target["met"] else "no"
        yield work["title"], target["title"], expected, figure, met


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        marks = ("* -", *["  -"] * (len(row) - 1))
        lines += [f"   {mark} {cell}".rstrip() for mark, cell in zip(marks, row, strict=True)]
    return lines


def _time(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s"


def _bytes(number: float) -> str:
    return f"{number / 1024**3:.0f} GiB" if number >= 2 * 1024**3 else f"{number / 1024**2:.0f} MiB"
