"""Makes the tables and the plot of the documentation from the results of a run.

Usage: ``python -m benchmarks.plot docs/performance.json``: performance.inc and performance.svg are
written beside it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import report

# Keep text as text, and make the file reproducible from the same results.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 9})
OURS, OTHERS = "#8fbce6", "#d5dadf"  # light, because the text is on the bars
WIDTH = 4.8
"""Inches: narrow enough for a phone."""


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the speed of each peer, with a panel for each work that has several.

    Args:
        results: The results of a run.
        path: The path of the SVG.
    """
    works = [work for work in results["works"] if len(work["peers"]) > 1]
    heights = [len(work["peers"]) + 1.5 for work in works]
    figure = Figure(figsize=(WIDTH, 0.26 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(works), squeeze=False, height_ratios=heights)
    for work, (panel,) in zip(works, panels, strict=True):
        rows = report.speeds(work)
        panel.barh(
            range(len(rows)),
            [speed for _, speed in rows],
            color=[OURS if title.startswith("this library") else OTHERS for title, _ in rows],
        )
        # On the bars, because beside them the names would take half of the width.
        for row, (title, speed) in enumerate(rows):
            panel.text(0, row, f" {title}: {report.speed(speed)}", verticalalignment="center")
        panel.set_title(f"{work['title']}: {report.unit(work)}", loc="left", fontsize=9)
        panel.invert_yaxis()
        panel.margins(x=0)
        panel.xaxis.set_visible(False)
        panel.yaxis.set_visible(False)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    """Make the tables and the plot."""
    source = Path(sys.argv[1])
    results = json.loads(source.read_text())
    source.with_suffix(".inc").write_text(report.rst(results))
    draw(results, source.with_suffix(".svg"))


if __name__ == "__main__":
    main()
