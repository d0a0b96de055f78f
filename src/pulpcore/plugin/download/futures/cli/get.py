"""``pulp-futures get``: download one file."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import click
from rich.filesize import decimal

from pulpcore.plugin.download.futures import Download, DownloadMonitor, Factory, Writer, redact

from .options import Options
from .output import Output, Result
from .transfer import transfer

STDOUT = "-"


def get(
    url: str,
    path: str | None,
    expected: dict[str, int | str],
    options: Options,
    output: Output,
) -> bool:
    """Download one file.

    Args:
        url: The URL.
        path: Where to; '-' for stdout; None for the name in the URL, in the working directory.
        expected: What is known of the file: its size (bytes) and digests (hex), by their names.
        options: The options.
        output: Where to tell.

    Returns:
        Whether all is well.

    Raises:
        click.UsageError: The URL can't be used.
    """
    try:
        download = Factory(options.importer).build(url, path, SimpleNamespace(**expected))
    except ValueError as error:
        raise click.UsageError(redact.text(str(error))) from error
    options.limit(download)
    name = os.path.relpath(str(download.writer)) if path is None else path
    if path == STDOUT:
        download.writer = Writer(sys.stdout.buffer)
    monitor = DownloadMonitor(download, algorithms=["sha256"])
    failures = []
    with output.progress(name, 1, download.expected_size) as progress:

        def done(_: Download, failure: str | None) -> None:
            failures.append(failure)

        progress.watch(download)
        transfer([download], options.concurrent, done)
    failure = failures[0]
    if failure is not None:
        output.result(Result(name, url, None, None, "failed", failure))
        return False
    sha256 = str(monitor.facts()["sha256"])
    output.result(Result(name, url, monitor.size, sha256, "ok"))
    output.say(f"{name}: {decimal(monitor.size)}, sha256 {sha256}")
    return True
