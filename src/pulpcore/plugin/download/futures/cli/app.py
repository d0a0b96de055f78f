"""The commands and their arguments."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pulpcore.plugin.download.futures import DigestValidation, redact

from . import shown
from .get import STDOUT, get
from .manifest import folder_for
from .options import Options, common
from .output import Output, logging_to
from .repository import Repository, serve
from .signals import Interrupted, stopping
from .streams import standard_streams
from .sync import sync

DEMO = "pulp-futures-demo"

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
            # A prompt of click doesn't chain the signal as the cause, but as the context.
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


@cli.command("sync")
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
    output = Output(options.as_json, verbose=options.verbose > 0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_logging(options, output))
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


def _sha256(text: str) -> tuple[str, str]:
    return _digest(f"sha256:{text}")


def _digest(text: str) -> tuple[str, str]:
    algorithm, colon, digest = text.partition(":")
    if not colon:
        raise click.BadParameter("a digest is given as ALG:HEX, such as sha512:0a1b….")
    try:
        return algorithm.lower(), DigestValidation(algorithm, digest).expected
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


@cli.command("get")
@click.argument("url")
@click.option(
    "-o",
    "--output",
    "path",
    metavar="PATH",
    help="Where to write it; - is stdout. Default: the name in the URL, in the working directory.",
)
@click.option("--sha256", metavar="HEX", type=_sha256, help="The SHA-256 that it must have.")
@click.option(
    "--digest",
    metavar="ALG:HEX",
    type=_digest,
    help=f"The digest that it must have: {', '.join(DigestValidation.ALGORITHMS)}.",
)
@click.option(
    "--size", metavar="BYTES", type=click.IntRange(min=0), help="The size that it must have."
)
@common
def get_command(
    url: str,
    path: str | None,
    sha256: tuple[str, str] | None,
    digest: tuple[str, str] | None,
    size: int | None,
    options: Options,
) -> None:
    """Download one file.

    A file that is there already is replaced only when the new one is complete, and has the size and
    the digest that were given.
    """
    if sha256 is not None and digest is not None:
        raise click.UsageError("--sha256 and --digest exclude each other.")
    if path == "":
        raise click.UsageError("--output: the path is empty.")
    if path is not None and shown.is_url(path):
        raise click.UsageError("--output: it is a URL, and must be a path.")
    if path == STDOUT and options.as_json:
        raise click.UsageError("--json and '-o -' exclude each other: both write to stdout.")
    expected: dict[str, int | str] = dict([pair for pair in (sha256, digest) if pair])
    if size is not None:
        expected["size"] = size
    output = Output(options.as_json, verbose=options.verbose > 0, data=path == STDOUT)
    with _logging(options, output):
        succeeded = get(url, path, expected, options, output)
    _exit(succeeded)


def _logging(options: Options, output: Output) -> contextlib.AbstractContextManager[None]:
    level = logging.DEBUG if options.verbose > 1 else logging.WARNING
    return logging_to(output, level)


def _exit(succeeded: bool) -> None:
    click.get_current_context().exit(0 if succeeded else FAILED)
