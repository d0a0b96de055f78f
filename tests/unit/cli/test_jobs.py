"""Tests of what is reported of the files of a run that was interrupted."""

import json
from types import SimpleNamespace

import pytest

from pulpcore.plugin.download.futures import FileDownload, FileWriter
from pulpcore.plugin.download.futures.cli import jobs as module
from pulpcore.plugin.download.futures.cli.jobs import Job, Run
from pulpcore.plugin.download.futures.cli.output import Output, Result


class Progress:
    """A progress that shows nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("is_iterator", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
def test_never_begun(monkeypatch, capsys, as_json, is_iterator):
    """With JSON, a run that is interrupted has an object also for each file that never began.

    Files that come from an iterator, such as stdin, can't be listed without reading it further.
    """

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "transfer", interrupted)
    options = SimpleNamespace(concurrent=1, limits=None, processes=1, as_json=as_json)
    files = [
        Job("a", "http://h/a", 1, None, lambda: None),
        Result("b", "http://h/b", None, None, "failed", "it is no URL"),
    ]
    run = Run(options, Output(as_json=as_json))
    with pytest.raises(KeyboardInterrupt):
        run.run(iter(files) if is_iterator else files, Progress())
    out = capsys.readouterr().out
    found = [json.loads(line) for line in out.splitlines()] if as_json else []
    assert [(each["path"], each["status"], each["reason"]) for each in found] == (
        [("a", "interrupted", "it never began"), ("b", "failed", "it is no URL")]
        if as_json and not is_iterator
        else []
    )


@pytest.mark.parametrize("session", [None, SimpleNamespace(has=lambda *_: False)])
def test_durable_with_a_session(monkeypatch, session):
    """Files are written durably only with --session, whose journal may not name a lost file."""
    download = FileDownload("file:///a", FileWriter("a"))
    monkeypatch.setattr(module, "transfer", lambda downloads, *_: list(downloads))
    options = SimpleNamespace(
        concurrent=1, limits=None, processes=1, as_json=False, keeps=False, prepare=print
    )
    progress = Progress()
    progress.watch = progress.count_file = lambda *_: None
    job = Job("a", "file:///a", 1, "0" * 64, lambda: download, "a")
    Run(options, Output(), session).run([job], progress)
    assert download.writer.durable == (session is not None)
