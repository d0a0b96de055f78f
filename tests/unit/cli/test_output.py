"""What goes to which stream."""

import io
import json
import logging
import sys

import pytest
from rich.console import Console

from pulpcore.plugin.download.futures.cli import output as module
from pulpcore.plugin.download.futures.cli.output import Output, Result, logging_to, printable
from pulpcore.plugin.download.futures.cli.progress import Bars, Lines, Progress

OK = Result("a", "https://u:secret@example.org/a?token=secret#x", 1, "00", "ok")
SKIPPED = Result("b", None, 1, "00", "skipped", "already there")
FAILED = Result("c", None, 1, "00", "failed", "why")
NAMELESS = Result(None, None, None, None, "failed", "line 1")


def test_for_people(capsys):
    """People are told on stdout, and of failures on stderr."""
    output = Output()
    output.say("said")
    output.complain("complained")
    for result in (OK, SKIPPED, FAILED, NAMELESS):
        output.result(result)
    captured = capsys.readouterr()
    assert captured.out == "said\n"
    assert captured.err == "complained\nfailed: c: why\nfailed: line 1\n"


def test_verbose(capsys):
    """Each file is named where one asks for it."""
    output = Output(verbose=True)
    output.result(OK)
    output.result(SKIPPED)
    assert capsys.readouterr().out == "ok: a\nskipped: b\n"


def test_json(capsys):
    """Programs get a line for each file on stdout, without secrets; the rest goes to stderr."""
    output = Output(as_json=True, verbose=True)
    output.say("said")
    for result in (OK, SKIPPED, FAILED, NAMELESS):
        output.result(result)
    captured = capsys.readouterr()
    records = [json.loads(line) for line in captured.out.splitlines()]
    assert records[0] == {
        "path": "a",
        "url": "https://example.org/a?token=***",
        "size": 1,
        "sha256": "00",
        "status": "ok",
        "reason": None,
    }
    assert [record["status"] for record in records] == ["ok", "skipped", "failed", "failed"]
    assert captured.err.startswith("said\n")


def test_data(capsys):
    """Where stdout is a file's content, nothing else goes there."""
    Output(data=True).say("said")
    assert capsys.readouterr() == ("", "said\n")


def test_unprintable():
    """A name can neither forge a line nor steer the terminal."""
    assert printable("é a\n\x1b[2J\u202e\udcff") == "é a\\n\\x1b[2J\\u202e\\udcff"


def test_narrow_encoding(monkeypatch):
    """A name that the terminal can't show doesn't stop the work."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    Output().say("é")
    assert stream.buffer.getvalue() == b"\\xe9\n"


@pytest.mark.parametrize(
    ("terminal", "files", "kind"),
    [(True, 1, Bars), (False, 1, Lines), (True, 0, Progress), (False, 0, Progress)],
)
def test_progress(monkeypatch, terminal, files, kind):
    """There are bars on a terminal, lines elsewhere, and neither where there is nothing to do."""
    monkeypatch.setattr(
        module, "Console", lambda stderr: Console(stderr=stderr, force_terminal=terminal)
    )
    monkeypatch.setenv("TERM", "xterm")
    assert type(Output().progress("title", files, 1)) is kind


def test_dumb_terminal(monkeypatch):
    """A terminal that can't move its cursor gets lines."""
    monkeypatch.setattr(
        module, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True)
    )
    monkeypatch.setenv("TERM", "dumb")
    assert type(Output().progress("title", 1, 1)) is Lines


def test_logging(capsys, caplog):
    """What the library logs is told once, on stderr, line by line; afterwards all is as before."""
    logger = logging.getLogger("pulpcore.plugin.download.futures")
    before = logger.level, logger.propagate, list(logger.handlers)
    with logging_to(Output(), logging.INFO):
        logging.getLogger("pulpcore.plugin.download.futures.some").info("two\nlines")
        logger.debug("not this")
    assert capsys.readouterr().err == "INFO: two\nlines\n"
    assert caplog.records == []
    assert (logger.level, logger.propagate, logger.handlers) == before
