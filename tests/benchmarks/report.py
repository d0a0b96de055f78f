"""Formats the results, for a terminal and as tables for the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.works import MIB, TIMES

Results = dict[str, Any]

LARGE = MIB
"""From this size on, speed is given in megabytes per second instead of files per second."""


def text(results: Results) -> str:
    """Format the results for a terminal."""
    lines = []
    for work in results["works"]:
        lines += ["", f"{work['title']} (server: {work['server']})", ""]
        rows = [("", *_header(work)), *_peers(work)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for first, *others in rows:
            shown = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([f"  {first:<{widths[0]}}", *shown]))
        for target in work["targets"]:
            line = f"{target['title']}: {_figure(target)}"
            if expected := _expected(target):
                line = f"{'ok' if target['met'] else 'NO'}: {line} (target: {expected})"
            lines.append(f"  {line}")
    return "\n".join([*_about(results), *lines])


def rst(results: Results) -> str:
    """Format the results as tables of reStructuredText, each with its ratios below."""
    lines = [".. Generated from performance.json by `tox -e plot`: don't edit.", ""]
    lines += [f"- {line}" for line in _about(results)]
    for work in results["works"]:
        title = f"{work['title']}, server: {work['server']}"
        lines += ["", *_table(title, ("", *_header(work)), list(_peers(work)))]
        if work["targets"]:
            lines += [""]
            lines += [f"- {target['title']}: {_figure(target)}" for target in work["targets"]]
    return "\n".join(lines) + "\n"


def speeds(work: Results) -> list[tuple[str, float]]:
    """Return the title of each peer of a work, and its speed in the unit of the work."""
    factor = work["size"] / 1e6 if work["size"] >= LARGE else 1
    return [
        (peer["title"], factor * median(taken["rate"] for taken in peer["rounds"]))
        for peer in work["peers"]
    ]


def unit(work: Results) -> str:
    """Return the unit of the speed of a work."""
    return "MB/s" if work["size"] >= LARGE else "files/s"


def speed(figure: float) -> str:
    """Format a speed for people."""
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


def _header(work: Results) -> tuple[str, ...]:
    return (unit(work), "CPU per file", "memory")


def _peers(work: Results) -> Iterator[tuple[str, ...]]:
    for peer, (title, figure) in zip(work["peers"], speeds(work), strict=True):
        cpu, memory = (
            median(taken[name] for taken in peer["rounds"]) for name in ("cpu", "memory")
        )
        yield title, speed(figure), _time(cpu / work["files"]), _bytes(memory)


def _figure(target: Results) -> str:
    """Format the median of a figure, and the range of the rounds."""
    digits = 2 if target["unit"] == TIMES else 1
    shown = f"{target['median']:.{digits}f}{_suffix(target)}"
    if len(target["figures"]) > 1:
        low, high = min(target["figures"]), max(target["figures"])
        shown += f" ({low:.{digits}f} to {high:.{digits}f})"
    return shown


def _expected(target: Results) -> str:
    if target["most"] is not None:
        return f"at most {target['most']:g}{_suffix(target)}"
    if target["least"] is not None:
        return f"at least {target['least']:g}{_suffix(target)}"
    return ""


def _suffix(target: Results) -> str:
    return TIMES if target["unit"] == TIMES else f" {target['unit']}"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f".. list-table:: {title}", "   :header-rows: 1", "   :class: figures", ""]
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
