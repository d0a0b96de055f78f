"""Tests of the journal of finished files."""

import stat

import click
import pytest

from pulpcore.plugin.download.futures.cli.session import Session

URL = "https://me:s3cret@example.org/a?token=s3cret"


@pytest.fixture
def journal(tmp_path):
    """The path of a journal that has one file."""
    (tmp_path / "a").write_bytes(b"content")
    with Session(str(tmp_path / "journal")) as session:
        assert not session.has(str(tmp_path / "a"), URL)
        session.add(str(tmp_path / "a"), URL)
        session.add(str(tmp_path / "a"), URL)
        session.add(str(tmp_path / "missing"), URL)
    return tmp_path / "journal"


def test_later_run(journal, tmp_path):
    """The journal finds a finished file by path and URL, while it exists with its size."""
    target = tmp_path / "a"
    with Session(str(journal)) as session:
        assert session.has(str(target), URL)
        assert not session.has(str(target), "https://example.org/b")
        assert not session.has(str(tmp_path / "b"), URL)
        target.write_bytes(b"other content")
        assert not session.has(str(target), URL)
        target.unlink()
        assert not session.has(str(target), URL)
        target.mkdir()
        assert not session.has(str(target), URL)


def test_file(journal):
    """Only the owner may read the journal, and it has no secret."""
    journal.chmod(0o644)
    Session(str(journal)).__exit__(None, None, None)
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    assert b"s3cret" not in journal.read_bytes()
    assert journal.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("damage", [b"0123", b"0123\n", b"\0" * 16 + b"\n", b"x" * 16 + b"\n"])
def test_damaged(journal, tmp_path, damage):
    """A damaged line, such as the last one of a killed run, is ignored."""
    with journal.open("ab") as file:
        file.write(damage)
    (tmp_path / "b").touch()
    with Session(str(journal)) as session:
        session.add(str(tmp_path / "b"), URL)
    with Session(str(journal)) as session:
        assert session.has(str(tmp_path / "a"), URL)
        assert session.has(str(tmp_path / "b"), URL)


def test_refused(journal, tmp_path):
    """Another file, a folder, and a journal in use are refused, and stay as they are."""
    (tmp_path / "other").write_text("mine\n")
    with pytest.raises(click.UsageError, match="is another file"):
        Session(str(tmp_path / "other"))
    assert (tmp_path / "other").read_text() == "mine\n"
    with pytest.raises(click.UsageError, match="Is a directory"):
        Session(str(tmp_path))
    with pytest.raises(click.UsageError, match="no regular file"):
        Session("/dev/null")
    with Session(str(journal)), pytest.raises(click.UsageError, match="another run is using"):
        Session(str(journal))
