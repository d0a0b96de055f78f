"""``pulp-futures get``: download files by their URLs."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.filesize import decimal

from pulpcore.plugin.download.futures import Factory, Writer

from . import shown, streams
from .entries import entry_of
from .jobs import Job, Run
from .manifest import Destination, Refused
from .options import Options
from .output import Output, Result
from .session import Session
from .wanted import STDIO, Files, Wanted, add_expected, build, check_mirrors, job_of


def get(wanted: Wanted, options: Options, output: Output, session: Session | None) -> bool:
    """Download files.

    Args:
        wanted: What to download.
        options: The options.
        output: Reports to the user.
        session: What earlier runs have finished.

    Returns:
        Whether all files are there.

    Raises:
        click.UsageError: The arguments or a list can't be used.
    """
    if wanted.is_one:
        return _one(wanted, options, output, session)
    found = Files(wanted, options)
    jobs = iter(found) if found.is_stream else found
    run = Run(options, output, session)
    try:
        found.read_metalink(output)
        # A list of a million lines takes seconds.
        files = found.check()
    except KeyboardInterrupt:
        run.interrupt(jobs)
        output.complain("stopped: no file was downloaded")
        raise
    try:
        run.run(jobs, output.progress("Downloading", files, None))
    except KeyboardInterrupt:
        output.stopped(options.keeps)
        raise
    finally:
        output.say(run.summary.text(files, options.keeps))
    return run.summary.well


def _one(wanted: Wanted, options: Options, output: Output, session: Session | None) -> bool:
    """Download the only file."""
    if wanted.path == STDIO and options.processes > 1:
        raise click.UsageError("--processes: other processes can't write to stdout.")
    job = _only(wanted, options)
    run = Run(options, output, session, hashes=True)
    try:
        run.run([job], output.progress(job.path or "", 1, job.size))
    except KeyboardInterrupt:
        output.stopped(options.keeps)
        output.say(run.summary.text(1, options.keeps))
        raise
    if run.last is not None and run.last.status == "ok":
        output.say(f"{job.path}: {decimal(run.last.size or 0)}, sha256 {run.last.sha256}")
    elif run.last is not None and run.last.status == "skipped":
        output.say(f"{job.path}: {run.last.reason}")
    return run.summary.well


def _only(wanted: Wanted, options: Options) -> Job | Result:
    """Return the job of the only file, for which a wrong argument is a usage error."""
    stdout = streams.content() if wanted.path == STDIO else None
    if wanted.path == STDIO and stdout is None:
        raise click.UsageError("--output: stdout is closed.")
    try:
        # A URL that goes to a given path needs no name.
        entry = entry_of(wanted.urls[0], {} if wanted.path is None else {"out": "given"})
        add_expected(entry, wanted.expected)
        check_mirrors(entry, options)
        if wanted.checksums is not None:
            name = entry.path if wanted.path is None else os.path.basename(wanted.path)
            try:
                add_expected(entry, dict([wanted.checksums.find(name)]))
            except Refused as error:
                return Result(name, entry.url, None, None, "failed", str(error))
        # Factory requires a path, but nothing is written there. An absolute one needs no working
        # directory.
        path = "/stdout" if stdout is not None else wanted.path
        if path is None and wanted.folder is not None:
            path = str(Destination(Path(wanted.folder)).locate(entry.path))
        elif path is not None and stdout is None:
            path = os.path.join(wanted.folder or "", path)
        download = build(entry, path, Factory(options.importer), options)
        name = entry.path if path is None else shown.path(wanted.path or path)
        if path is None:
            name = os.path.relpath(str(download.writer))
    except ValueError as error:
        raise click.UsageError(shown.hint(str(error))) from error
    except OSError as error:
        reason = f"the working directory can't be used: {error.strerror}"
        raise click.UsageError(reason) from error
    target: str | None = str(download.writer)
    if stdout is not None:
        download.writer, target = Writer(stdout), None
    return job_of(entry, name, lambda: download, target)
