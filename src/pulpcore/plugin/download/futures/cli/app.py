"""The commands and their arguments."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from pulpcore.plugin.download.futures import DigestValidation, redact

from . import shown, values
from .checksums import Checksums
from .get import get
from .manifest import Refused, folder_for
from .options import Grouped, Options, common
from .output import Output, logging_to
from .repository import Repository, serve
from .session import Session
from .signals import Interrupted, stopping
from .streams import standard_streams
from .sync import sync
from .wanted import STDIO, Wanted

DEMO = "pulp-futures-demo"

# The type lets shells complete paths. The code that uses a path checks it.
_PATH = click.Path(readable=False)
_FOLDER = click.Path(readable=False, file_okay=False)

FAILED = 1
USAGE = 2
STOPPED = 130


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments; by default those of the process.

    Returns:
        The exit status. 0: success. 1: some files failed, or some output could not be written. 2:
        the arguments are wrong. 130: Ctrl-C. After another signal: 128 plus its number.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    with standard_streams() as (stdout, stderr):
        status = _run(given)
        stdout.flush()
        if stdout.problem is not None:
            stderr.write(f"failed: stdout can't be written to: {stdout.problem}\n")
    # stderr that was closed before the start is no failure: the caller wanted no messages.
    is_lost = stdout.problem is not None or (stderr.problem is not None and not stderr.missing)
    return FAILED if is_lost and not status else status


def _run(arguments: list[str]) -> int:
    with stopping():
        try:
            status = cli.main(arguments, prog_name="pulp-futures", standalone_mode=False)
        except click.ClickException as error:
            # click quotes arguments, and any of them may be a URL.
            message = shown.message(error.format_message(), arguments)
            click.UsageError(message, getattr(error, "ctx", None)).show()
            return error.exit_code
        except click.Abort as abort:
            # A signal during a prompt of click is the exception's context, not its cause.
            cause = abort.__cause__ or abort.__context__
            return cause.status if isinstance(cause, Interrupted) else STOPPED
        except OSError as error:
            # For example, the process has no file descriptor left for the demo's server.
            click.echo(f"failed: {error.strerror or type(error).__name__}", err=True)
            return FAILED
    return int(status or 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="pulpcore-futures")
@click.pass_context
def cli(context: click.Context) -> None:
    """Download many files in parallel. Each appears only when it is complete and verified."""
    # Some versions of click write the usage twice.
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


@cli.command("sync", cls=Grouped)
@click.argument("manifest_url", required=False)
@click.argument("destination", required=False, type=click.Path(file_okay=False, path_type=Path))
@common
def sync_command(manifest_url: str | None, destination: Path | None, options: Options) -> None:
    """Download the files that a PULP_MANIFEST lists.

    Each line of the manifest is path,sha256,size. Files that are missing in the folder DESTINATION,
    or that differ, are downloaded; nothing is removed. By default the folder is in the working
    directory, and named after the URL.

    Without MANIFEST_URL the program serves a generated repository on this machine, and downloads
    it into ./pulp-futures-demo.
    """
    output = _output(options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(options, output))
        if manifest_url is None:
            manifest_url = stack.enter_context(serve(Repository()))
            destination = Path(DEMO)
            output.say(f"No URL of a manifest: serving a generated repository at {manifest_url}")
        folder = destination or Path(folder_for(manifest_url))
        if shown.is_url(str(folder)):
            raise click.UsageError("The destination is a URL: it must be a folder.")
        output.say(f"Syncing {redact.url(manifest_url)} into {shown.path(str(folder))}")
        succeeded = sync(manifest_url, folder, options, output)
    _exit(succeeded)


@cli.command("get", cls=Grouped)
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option(
    "-i",
    "--input-file",
    "listed",
    metavar="FILE",
    type=_PATH,
    help="A list of URLs in aria2's form; - is stdin.",
)
@click.option(
    "--metalink",
    metavar="FILE-or-URL",
    type=_PATH,
    help="A Metalink document: files with their mirrors, sizes and digests.",
)
@click.option(
    "-P",
    "--directory-prefix",
    "folder",
    metavar="DIR",
    type=_FOLDER,
    help="The folder that files go to. Default: the working directory.",
)
@click.option(
    "-o",
    "--output",
    "path",
    metavar="PATH",
    type=_PATH,
    help="Where to write the only file; - is stdout. Default: the name in the URL.",
)
@click.option("--sha256", metavar="HEX", type=values.sha256, help="The SHA-256 of the only file.")
@click.option(
    "--digest",
    metavar="ALG:HEX",
    type=values.digest,
    help=f"The digest of the only file: {', '.join(DigestValidation.ALGORITHMS)}.",
)
@click.option(
    "--size", metavar="BYTES", type=click.IntRange(min=0), help="The size of the only file."
)
@click.option(
    "--checksums",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True),
    help="The digests of all files, as sha256sum writes them.",
)
@click.option(
    "--session",
    "journal",
    metavar="FILE",
    type=_PATH,
    help="Note in FILE what is finished, and don't ask for it again.",
)
@common
def get_command(
    urls: tuple[str, ...],
    listed: str | None,
    metalink: str | None,
    folder: str | None,
    path: str | None,
    sha256: tuple[str, str] | None,
    digest: tuple[str, str] | None,
    size: int | None,
    checksums: str | None,
    journal: str | None,
    options: Options,
) -> None:
    """Download files.

    A URL may end in #sha256=HEX. A file that is there already is replaced only when the new one is
    complete, and has the size and the digest that were given.
    """
    expected: dict[str, int | str] = dict([pair for pair in (sha256, digest) if pair])
    if sha256 is not None and digest is not None:
        raise click.UsageError("--sha256 and --digest exclude each other.")
    if size is not None:
        expected["size"] = size
    wanted = Wanted(urls, listed, metalink, None, folder, path, expected)
    _check_get(wanted, options)
    if path == STDIO and journal is not None:
        raise click.UsageError("--session and '-o -' exclude each other.")
    digests = None if checksums is None else _checksums(checksums)
    output = _output(options, data=path == STDIO)
    wanted = replace(wanted, checksums=digests)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(options, output))
        session = None if journal is None else stack.enter_context(Session(journal))
        succeeded = get(wanted, options, output, session)
    _exit(succeeded)


def _check_get(wanted: Wanted, options: Options) -> None:
    path = wanted.path
    if not wanted.urls and wanted.listed is None and wanted.metalink is None:
        raise click.UsageError("Missing argument 'URL', or the option -i or --metalink.")
    if path == "":
        raise click.UsageError("--output: the path is empty.")
    if path is not None and shown.is_url(path):
        raise click.UsageError("--output: it is a URL, and must be a path.")
    if (path is not None or wanted.expected) and not wanted.is_one:
        raise click.UsageError("--output, --sha256, --digest and --size are for one URL.")
    if path == STDIO and options.as_json:
        raise click.UsageError("--json and '-o -' exclude each other: both write to stdout.")


def _checksums(path: str) -> Checksums:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            return Checksums(lines)
    except Refused as error:
        raise click.UsageError(f"--checksums: {error}.") from error


def _output(options: Options, data: bool = False) -> Output:
    return Output(options.as_json, options.verbose > 0, data, options.quiet)


@contextlib.contextmanager
def _running(options: Options, output: Output) -> Iterator[None]:
    """Show the library's log, and end with the status of a signal if one comes."""
    level = logging.DEBUG if options.verbose > 1 else logging.WARNING
    try:
        with logging_to(output, level):
            yield
    except Interrupted as stop:
        # click would write an empty line below the summary.
        raise click.exceptions.Exit(stop.status) from None


def _exit(succeeded: bool) -> None:
    click.get_current_context().exit(0 if succeeded else FAILED)
