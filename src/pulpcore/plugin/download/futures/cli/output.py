"""Writes messages, results and progress, each to its stream and in its format."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, TextIO

from rich.console import Console
from rich.text import Text

from pulpcore.plugin.download.futures import redact

from . import shown
from .progress import Bars, Lines, Progress

Status = Literal["ok", "failed", "skipped", "interrupted"]

LOGGER = "pulpcore.plugin.download.futures"


@dataclass(frozen=True)
class Result:
    """How the download of a file ended.

    Attributes:
        path (str | None): The path that the manifest or the user gave; None if there is none.
        url (str | None): The URL.
        size (int | None): The size (bytes); None if unknown.
        sha256 (str | None): The digest (hex); None if unknown.
        status (str): The outcome.
        reason (str | None): Why it failed or was skipped; None if it was downloaded.
        http_status (int | None): The status of the last reply; None without one.
        source (str | None): Which URL brought the content; None if none did.
    """

    path: str | None
    url: str | None
    size: int | None
    sha256: str | None
    status: Status
    reason: str | None = None
    http_status: int | None = None
    source: str | None = None


class Output:
    """Writes messages for people and results for programs.

    Messages go to stdout, or to stderr if stdout carries data. Errors and progress bars always go
    to stderr. Secrets are redacted, and control characters in names are escaped.

    Attributes:
        verbose (bool): Name each file.
    """

    def __init__(
        self,
        as_json: bool = False,
        verbose: bool = False,
        data: bool = False,
        quiet: bool = False,
    ) -> None:
        """Create the output of a command.

        Args:
            as_json: Write one line of JSON for each file to stdout.
            verbose: Name each file.
            data: The content of a file goes to stdout.
            quiet: Write errors only.
        """
        self._json = as_json
        self._taken = as_json or data
        # Messages would stand in the middle of content that is shown on the terminal.
        self._quiet = quiet or (data and sys.stdout.isatty())
        self.verbose = verbose

    def say(self, text: str) -> None:
        """Write a message.

        Args:
            text: One line.
        """
        if self._quiet:
            return
        stream = sys.stderr if self._taken else sys.stdout
        encoding = getattr(stream, "encoding", None) or "utf-8"
        # A name that the terminal's encoding lacks must not stop the downloads.
        shown = printable(text).encode(encoding, "backslashreplace").decode(encoding)
        _write(stream, shown)

    def complain(self, text: str) -> None:
        """Write an error to stderr.

        Args:
            text: One line.
        """
        _write(sys.stderr, printable(text))

    def stopped(self, keeps: bool) -> None:
        """Say that the run was stopped.

        Args:
            keeps: Partial files are kept.
        """
        what = "partial files are kept" if keeps else "no partial file is left (-c keeps them)"
        self.complain(f"stopped: {what}")

    def result(self, result: Result) -> None:
        """Report how the download of a file ended.

        Args:
            result: The file and how it ended.
        """
        path = None if result.path is None else shown.path(result.path)
        name = path or ""
        if result.status == "failed":
            self.complain(self._failure(name, result))
        elif self.verbose:
            self.say(f"{result.status}: {name}")
        if self._json:
            record = asdict(result) | {"path": path}
            for name in "url", "source":
                if record[name] is not None:
                    record[name] = redact.url(record[name])
            _write(sys.stdout, json.dumps(record))

    def _failure(self, name: str, result: Result) -> str:
        reason = result.reason or ""
        if self.verbose or not sys.stderr.isatty():
            return f"failed: {name}: {reason}" if name else f"failed: {reason}"
        # The name identifies the file, so leave out the URL to make room for the reason.
        reason = reason.replace(f"{redact.url(result.url or '')}: ", "", 1)
        return short(printable(name), printable(reason), Console(stderr=True).width)

    def progress(self, title: str, files: int | None, size: int | None) -> Progress:
        """Show progress: a bar on a terminal, lines elsewhere.

        Args:
            title: The name of the work, such as "Downloading".
            files: The number of files; None if it isn't known.
            size: The size of all files together (bytes), if known.
        """
        if files == 0 or self._quiet:
            return Progress(title, files, size)
        console = Console(stderr=True)
        if console.is_interactive:
            return Bars(title, files, size, console)
        return Lines(title, files, size, self.say)


@contextlib.contextmanager
def logging_to(output: Output, level: int) -> Iterator[None]:
    """Within the ``with``, show the library's log records on stderr.

    Args:
        output: Writes the records.
        level: The minimum level.
    """
    logger = logging.getLogger(LOGGER)
    handler = _LogHandler(output)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    # pulpcore gives the root logger a handler, which would print each record a second time.
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def printable(text: str) -> str:
    """Escape control characters, so that a name can neither forge a line nor steer the terminal.

    Args:
        text: Any text.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(name: str, reason: str, width: int) -> str:
    """Return an error that takes two lines of a terminal at most.

    Args:
        name: The name of the file; its end is what is shown of a long one.
        reason: Why it failed.
        width: The width of the terminal.
    """
    most = width // 2
    name = name if len(name) <= most else "…" + name[1 - most :]
    text = f"failed: {name}: {reason}" if name else f"failed: {reason}"
    lines = Text(text).wrap(Console(width=width), width)
    if len(lines) <= 2:
        return text
    lines[1].truncate(width - 1)
    return f"{lines[0].plain.rstrip()} {lines[1].plain.rstrip()}…"


def _write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


class _LogHandler(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self._output.complain(line)
