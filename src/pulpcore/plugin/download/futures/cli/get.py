"""``pulp-futures get``: download one file."""

from __future__ import annotations

import os
from types import SimpleNamespace

import click
from rich.filesize import decimal

from pulpcore.plugin.download.futures import Download, DownloadMonitor, Factory, Writer

from . import shown, streams
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
        path: The path to write; '-' for stdout; None for the name in the URL.
        expected: What is known of the file: its size (bytes) and digests (hex), by their names.
        options: The options.
        output: Reports to the user.

    Returns:
        Whether the file was downloaded.

    Raises:
        click.UsageError: The URL or the path can't be used.
    """
    download, name = _build(url, path, expected, options)
    monitor = DownloadMonitor(download, algorithms=["sha256"])
    failures: list[str | None] = []
    with output.progress(name, 1, download.expected_size) as progress:
        progress.watch(download)
        try:
            transfer([download], 1, lambda _, failure: failures.append(failure))
        except KeyboardInterrupt:
            output.complain(f"stopped: {name} was interrupted, and no partial file is left")
            raise
    failure = failures[0]
    if failure is not None:
        output.result(Result(name, url, None, None, "failed", failure))
        return False
    sha256 = str(monitor.facts()["sha256"])
    output.result(Result(name, url, monitor.size, sha256, "ok"))
    output.say(f"{name}: {decimal(monitor.size)}, sha256 {sha256}")
    return True


def _build(
    url: str, path: str | None, expected: dict[str, int | str], options: Options
) -> tuple[Download, str]:
    """Create the download, and the name that messages use for it."""
    stdout = streams.content() if path == STDOUT else None
    if path == STDOUT and stdout is None:
        raise click.UsageError("--output: stdout is closed.")
    # Factory wants a path. An absolute one needs no working directory; it isn't written to.
    target = path if stdout is None else "/stdout"
    try:
        download: Download = Factory(options.importer).build(
            url, target, SimpleNamespace(**expected)
        )
        name = os.path.relpath(str(download.writer)) if path is None else shown.path(path)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        reason = f"the working directory can't be used: {error.strerror}"
        raise click.UsageError(reason) from error
    options.limit(download)
    if stdout is not None:
        download.writer = Writer(stdout)
    return download, name
