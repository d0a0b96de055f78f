"""``pulp-futures sync``: download the files that a PULP_MANIFEST lists."""

from __future__ import annotations

import functools
from pathlib import Path
from urllib.parse import urlsplit

import click
from requests import Response

from pulpcore.plugin.download.futures import Download, Factory
from pulpcore.plugin.download.futures.http.redirect import may_have_credentials
from pulpcore.plugin.download.futures.net.url import parse

from . import manifest
from .document import fetch
from .entries import is_http
from .jobs import Job, Run
from .manifest import BadLine, Entry
from .options import Options
from .output import Output, Result


def sync(url: str, destination: Path, options: Options, output: Output) -> bool:
    """Download the files of a manifest that are missing in a folder or differ.

    Args:
        url: The URL of the manifest.
        destination: The folder. It is created if it is missing.
        options: The options.
        output: Reports to the user.

    Returns:
        Whether the folder now has every file of the manifest.

    Raises:
        click.UsageError: The URL or the folder can't be used.
    """
    if options.mirrors is not None and not is_http(url):
        raise click.UsageError("--mirror: the URL of the manifest must be one of http or https.")
    try:
        content, url, factory = _read(url, options, output)
        found = manifest.parse(content)
    except manifest.Unusable as error:
        output.result(Result(None, url, None, None, "failed", str(error), error.status))
        return False
    except KeyboardInterrupt:
        output.result(Result(None, url, None, None, "interrupted", "it was interrupted"))
        output.complain("stopped: the manifest was interrupted, and no file was downloaded")
        raise
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"the folder {str(destination)!r} can't be made: {error.strerror}"
        raise click.UsageError(reason) from error
    jobs = _jobs(found, url, manifest.Destination(destination), factory, options)
    size = sum(item.size or 0 for item in jobs)
    run = Run(options, output)
    try:
        run.run(jobs, output.progress("Downloading", len(jobs), size))
    except KeyboardInterrupt:
        output.stopped(options.keeps)
        raise
    finally:
        output.say(run.summary.text(len(jobs), options.keeps))
    return run.summary.well


def _jobs(
    found: list[Entry | BadLine],
    url: str,
    folder: manifest.Destination,
    factory: Factory,
    options: Options,
) -> list[Job | Result]:
    """Return what is to be done for each line of the manifest."""

    def build(entry: Entry) -> Download:
        try:
            path = folder.locate(entry.path)
        except manifest.Refused as error:
            raise manifest.Refused(BadLine(entry.line, entry.path, str(error))) from error
        download: Download = factory.build(entry.url(url), path, entry)
        download.skip_existing = True
        options.prepare(download, options.mirrors_of(entry.quoted))
        return download

    return [
        Result(item.path, None, None, None, "failed", str(item))
        if isinstance(item, BadLine)
        else Job(item.path, item.url(url), item.size, item.sha256, functools.partial(build, item))
        for item in found
    ]


def _read(url: str, options: Options, output: Output) -> tuple[bytes, str, Factory]:
    """Download the manifest.

    Returns:
        The manifest, its URL after redirects, and the factory for the files. If a redirect led to
        another host, the factory has no credentials: they are meant for the given host. If a mirror
        brought the manifest, it is the given URL, and the files have the mirrors, too.
    """
    mirrors = options.mirrors_of(manifest.name_of(url))
    content, download = fetch(url, "manifest", manifest.LIMIT, options, output, mirrors)
    factory = Factory(options.importer)
    if not isinstance(download.reply, Response):
        return content, url.partition("?")[0], factory
    if getattr(download, "source", url) != url:
        return content, url, factory
    given, answered = parse(url), parse(str(download.reply.url))
    if may_have_credentials(given.origin, answered.origin):
        userinfo = urlsplit(url).netloc.rpartition("@")
        text = answered.text.replace("://", f"://{userinfo[0]}{userinfo[1]}", 1)
    else:
        text = answered.text
        factory = options.foreign(text)
    return content, text, factory
