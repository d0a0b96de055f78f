"""Reads a Metalink document, which names files with their sources, sizes and digests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import click
from requests import Response

from pulpcore.plugin.download.futures import Download, Metalink
from pulpcore.plugin.download.futures.http.redirect import may_have_credentials
from pulpcore.plugin.download.futures.mirrors import LARGEST, MetalinkFile
from pulpcore.plugin.download.futures.net.url import parse

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
        An entry for each file. A file that can't be used has a failed result instead. If the
        document at a URL can't be used, there is one failed result for it.

    Raises:
        click.UsageError: The URL is invalid, or the file at the path can't be read or parsed.
    """
    if not shown.is_url(where):
        return list(_entries(_parse(_read(where), where), lambda _: True))
    try:
        content, download = fetch(where, "Metalink document", LARGEST, options, output)
        return list(_entries(Metalink.parse(content), partial(_is_trusted, download)))
    except Unusable as error:
        return [Result(None, where, None, None, "failed", str(error), error.status)]
    except ValueError as error:
        return [Result(None, where, None, None, "failed", str(error))]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            # One byte more than allowed, so that the parser refuses a larger document.
            return file.read(LARGEST + 1)
    except OSError as error:
        raise click.UsageError(f"--metalink: {path!r}: {error.strerror}") from error


def _parse(content: bytes, path: str) -> Metalink:
    try:
        return Metalink.parse(content)
    except ValueError as error:
        raise click.UsageError(f"--metalink: {os.path.basename(path)!r}: {error}.") from error


def _is_trusted(document: Download, url: str) -> bool:
    """Whether credentials may be sent to a URL in a document.

    The author of a document chooses its URLs. So credentials are only sent to the server that was
    asked for the document, and only if it sent the document itself. A ``file:`` URL is trusted.
    """
    if not isinstance(document.reply, Response):
        return document.url.lower().startswith("file:")
    asked = parse(document.url).origin
    answered = parse(str(document.reply.url)).origin
    return all(may_have_credentials(asked, each) for each in (answered, parse(url).origin))


def _entries(document: Metalink, is_trusted: Callable[[str], bool]) -> Iterator[Entry | Result]:
    for file in document.files:
        try:
            yield _entry(file, is_trusted)
        except Refused as error:
            sha256 = file.digests.get("sha256")
            yield Result(file.name, None, file.size, sha256, "failed", str(error))


def _entry(file: MetalinkFile, is_trusted: Callable[[str], bool]) -> Entry:
    path = relative(file.name)
    if not file.urls:
        raise Refused("the Metalink document has no http URL of it")
    url, *mirrors = (each.url for each in file.urls)
    size = {} if file.size is None else {"size": file.size}
    return Entry(url, path, {**size, **file.digests}, mirrors, not is_trusted(url))
