"""Downloads a document that names files: a manifest, or a Metalink document."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pulpcore.plugin.download.futures import BufferWriter, Download, Factory

from .entries import check
from .manifest import Unusable
from .options import Options
from .output import Output
from .transfer import transfer


def fetch(
    url: str,
    name: str,
    limit: int,
    options: Options,
    output: Output,
    mirrors: Sequence[str] = (),
) -> tuple[bytes, Download]:
    """Download a document, and show the progress.

    Args:
        url: The URL.
        name: What messages call the document.
        limit: The largest size (bytes).
        options: The options.
        output: Reports to the user.
        mirrors: More URLs of the document.

    Returns:
        The content, and the download that brought it.

    Raises:
        click.UsageError: The URL can't be used.
        Unusable: The download failed.
    """
    try:
        # The path is a placeholder: a buffer replaces the writer below. It is absolute, because a
        # relative path would need the working directory.
        download: Download = Factory(options.importer).build(url, "/document")
        check(url)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    options.prepare(download, mirrors)
    writer = download.writer = BufferWriter(limit=limit)
    failures: list[str | None] = []
    with output.progress(name[0].upper() + name[1:], 1, None) as progress:
        progress.watch(download)
        transfer([download], 1, lambda _, failure: failures.append(failure), options.limits)
    if failures[0] is not None:
        status = getattr(download, "status", 0) or None
        raise Unusable(f"the {name}: {failures[0]}", status)
    return writer.getvalue(), download
