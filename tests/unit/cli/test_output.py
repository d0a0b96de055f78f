"""Tests of what the program writes to stdout and stderr."""

import io
import json
import logging
import sys

import pytest
from rich.console import Console
from rich.text import Text

from pulpcore.plugin.download.futures.cli import output as module
from pulpcore.plugin.download.futures.cli.output import (
    Output,
    Result,
    logging_to,
    printable,
    short,
)
from pulpcore.plugin.download.futures.cli.progress import Bars, Lines, Progress

OK = Result("a", "https://u:secret@example.org/a?token=secret#x", 1, "00", "ok")
SKIPPED = Result("b", None, 1, "00", "skipped", "already there")
FAILED = Result("c", None, 1, "00", "failed", "why")
NAMELESS = Result(None, None, None, None, "failed", "line 1")


def test_for_people(capsys):
    """Output for people goes to stdout, and failures go to stderr."""
    output = Output()
    output.say("said")
    output.complain("complained")
    for result in (OK, SKIPPED, FAILED, NAMELESS):
        output.result(result)
    captured = capsys.readouterr()
    assert captured.out == "said\n"
    assert captured.err == "complained\nfailed: c: why\nfailed: line 1\n"


def test_without_encoding(monkeypatch):
    """Output to a stream that has no encoding is written as it is."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    Output().say("ü")
    assert stream.getvalue() == "ü\n"


def test_verbose(capsys):
    """With verbose output each downloaded file is named."""
    output = Output(verbose=True)
    output.result(OK)
    output.result(SKIPPED)
    assert capsys.readouterr().out == "ok: a\nskipped: b\n"


def test_json(capsys):
    """With JSON output stdout has one line for each file, without secrets.

    All else goes to stderr.
    """
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
        "http_status": None,
        "source": None,
    }
    assert [record["status"] for record in records] == ["ok", "skipped", "failed", "failed"]
    assert captured.err.startswith("said\n")


def test_data(capsys):
    """When stdout carries a file's content, nothing else is written to it."""
    Output(data=True).say("said")
    assert capsys.readouterr() == ("", "said\n")


def test_unprintable():
    """Control characters in a name are escaped. They can't forge a line or control the terminal."""
    assert printable("é a\n\x1b[2J\u202e\udcff") == "é a\\n\\x1b[2J\\u202e\\udcff"


def test_narrow_encoding(monkeypatch):
    """A name that the terminal's encoding can't represent doesn't stop the program."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    Output().say("é")
    assert stream.buffer.getvalue() == b"\\xe9\n"


@pytest.mark.parametrize(
    ("terminal", "files", "kind"),
    [(True, 1, Bars), (False, 1, Lines), (True, 0, Progress), (False, 0, Progress)],
)
def test_progress(monkeypatch, terminal, files, kind):
    """Progress is shown as bars on a terminal and as lines elsewhere.

    Without work nothing is shown.
    """
    monkeypatch.setattr(
        module, "Console", lambda stderr: Console(stderr=stderr, force_terminal=terminal)
    )
    monkeypatch.setenv("TERM", "xterm")
    assert type(Output().progress("title", files, 1)) is kind


def test_dumb_terminal(monkeypatch):
    """A terminal that can't move its cursor gets progress lines instead of bars."""
    monkeypatch.setattr(
        module, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True)
    )
    monkeypatch.setenv("TERM", "dumb")
    assert type(Output().progress("title", 1, 1)) is Lines


def test_logging(capsys, caplog):
    """Log messages of the library are written once to stderr. Afterwards logging is as before."""
    logger = logging.getLogger("pulpcore.plugin.download.futures")
    before = logger.level, logger.propagate, list(logger.handlers)
    with logging_to(Output(), logging.INFO):
        logging.getLogger("pulpcore.plugin.download.futures.some").info("two\nlines")
        logger.debug("not this")
    assert capsys.readouterr().err == "INFO: two\nlines\n"
    assert caplog.records == []
    assert (logger.level, logger.propagate, logger.handlers) == before


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", ["a", "", "long-name-" * 20])
def test_short(columns, name):
    """On a terminal a long error is cut to two lines, and has the beginning of the reason."""
    text = short(name, "word " * 60, columns)
    assert text.endswith("…")
    assert "word" in text
    assert len(Text(text).wrap(Console(width=columns), columns)) == 2
    assert short("a", "why", columns) == "failed: a: why"
