"""Reads a Metalink document, which names files with their sources, sizes and digests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from pulpcore.plugin.download.futures import Metalink
from pulpcore.plugin.download.futures.http.redirect import may_have_credentials
from pulpcore.plugin.download.futures.mirrors import LARGEST, MetalinkFile
from pulpcore.plugin.download.futures.net.url import Origin, parse

from . import shown
from .document import fetch
from .entries import Entry
from .manifest import Refused, Unusable, relative
from .options import Options
from .output import Output, Result


def read(where: str, options: Options, output: Output) -> list[Entry | Result]:
    """Read a document.

    Args:
        where: Its path or its URL.
        options: The options.
        output: Reports to the user.

    Returns:
        The files. A result in the place of an entry is that of a file that can't be used, or of the
        document if it can't be.

    Raises:
        click.UsageError: The path or the URL can't be used, or there is no document at the path.
    """
    if not shown.is_url(where):
        return list(_entries(_parse(_read(where), where), None))
    try:
        content, _ = fetch(where, "Metalink document", LARGEST, options, output)
        return list(_entries(Metalink.parse(content), parse(where).origin))
    except Unusable as error:
        return [Result(None, where, None, None, "failed", str(error), error.status)]
    except ValueError as error:
        return [Result(None, where, None, None, "failed", str(error))]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            # One byte more, so that the parser sees that there are too many.
            return file.read(LARGEST + 1)
    except OSError as error:
        raise click.UsageError(f"--metalink: {path!r}: {error.strerror}") from error


def _parse(content: bytes, path: str) -> Metalink:
    try:
        return Metalink.parse(content)
    except ValueError as error:
        raise click.UsageError(f"--metalink: {os.path.basename(path)!r}: {error}.") from error


def _entries(document: Metalink, origin: Origin | None) -> Iterator[Entry | Result]:
    """Return the files of a document.

    Args:
        document: The document.
        origin: Where it comes from. Credentials are for this origin only, since whoever wrote the
            document chose the URLs. None for a file of the user's.
    """
    for file in document.files:
        try:
            yield _entry(file, origin)
        except Refused as error:
            sha256 = file.digests.get("sha256")
            yield Result(file.name, None, file.size, sha256, "failed", str(error))


def _entry(file: MetalinkFile, origin: Origin | None) -> Entry:
    path = relative(file.name)
    if not file.urls:
        raise Refused("the Metalink document has no http URL of it")
    url, *mirrors = (each.url for each in file.urls)
    size = {} if file.size is None else {"size": file.size}
    is_foreign = origin is not None and not may_have_credentials(origin, parse(url).origin)
    return Entry(url, path, {**size, **file.digests}, mirrors, is_foreign)
