"""Where the content of a file waits, and what of it stays for the next run."""

import errno
import fcntl
import json
import os
import re
import socket
import stat
import threading

import pytest
from processes import forked
from servers.leaks import open_files

from pulpcore.plugin.download.futures import FileWriter
from pulpcore.plugin.download.futures.storage import staging
from pulpcore.plugin.download.futures.storage.staging import Partial, Temporary

NOTE = "what it is"
CONTENT = b"the first half"


@pytest.fixture
def target(tmp_path):
    """The path of the file that is to be."""
    return tmp_path / "file"


@pytest.fixture(autouse=True)
def no_descriptor_left():
    """Each test closes what it opened, and so does the code, whatever went wrong."""
    before = open_files()
    yield
    assert open_files() == before


def beside(target):
    """The names of all that is beside the target."""
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def paths(target):
    """Where the partial file and its note are."""
    stage = Partial(str(target))
    stage.remember("?")
    names = beside(target)
    stage.forget()
    finish(stage)
    partial, note = (
        next(target.parent / name for name in names if name.endswith(end))
        for end in (".partial", ".note")
    )
    return partial, note


def finish(stage):
    """Close and drop, as a writer does."""
    stage.file.close()
    stage.drop()


def leave(target, content=CONTENT, note=NOTE):
    """What a run that failed leaves."""
    stage = Partial(str(target))
    stage.forget()
    stage.remember(note)
    stage.file.write(content)
    finish(stage)


def found(target):
    """What the next run finds: the note and the content."""
    stage = Partial(str(target))
    content = os.pread(stage.file.fileno(), 1000, 0)
    assert len(content) == stage.size == os.lseek(stage.file.fileno(), 0, os.SEEK_CUR)
    finish(stage)
    return stage.note, content


class TestTemporary:
    def test_publish(self, target):
        """It is in the folder of its target, takes its place, and nothing else is left."""
        stage = Temporary(str(target))
        assert re.fullmatch(r"\.download-[0-9a-f]{16}", *beside(target))
        assert not target.exists()
        stage.file.write(b"new")
        stage.file.close()
        stage.publish()
        stage.drop()
        assert target.read_bytes() == b"new"
        assert beside(target) == []

    def test_drop(self, target):
        """Nothing of it stays, and the old file is as it was; dropping again is no harm."""
        target.write_bytes(b"old")
        stage = Temporary(str(target))
        stage.file.write(b"new")
        finish(stage)
        stage.drop()
        assert target.read_bytes() == b"old"
        assert beside(target) == []

    def test_mode(self, target):
        """It has the permissions that any new file would have, and isn't inherited by programs."""
        stage = Temporary(str(target))
        twin = target.with_name("twin")
        twin.touch()
        assert os.fstat(stage.file.fileno()).st_mode == twin.stat().st_mode
        assert not os.get_inheritable(stage.file.fileno())
        finish(stage)

    def test_many(self, target):
        """Any number of them may be there at once."""
        stages = [Temporary(str(target)) for _ in range(50)]
        assert len(beside(target)) == 50
        for stage in stages:
            finish(stage)

    def test_no_folder(self, target):
        """Without the folder it is an error that the caller can make good."""
        with pytest.raises(FileNotFoundError):
            Temporary(str(target / "sub"))

    def test_folder_in_the_way(self, target):
        """Where it can't take its place it is told, and what stands there stays."""
        stage = Temporary(str(target))
        (target / "sub").mkdir(parents=True)
        stage.file.close()
        with pytest.raises(IsADirectoryError):
            stage.publish()
        stage.drop()
        assert (target / "sub").is_dir()
        assert beside(target) == []


class TestPartial:
    def test_nothing_there(self, target):
        """At first there is no note and no content, and without a note nothing stays."""
        stage = Partial(str(target))
        assert (stage.note, stage.size) == (None, 0)
        stage.file.write(CONTENT)
        finish(stage)
        assert beside(target) == []

    def test_go_on(self, target):
        """What stays is found by the next run, which writes on at its end."""
        leave(target)
        stage = Partial(str(target))
        assert (stage.note, stage.size) == (NOTE, len(CONTENT))
        stage.taken_up()
        stage.file.write(b" and more")
        finish(stage)
        assert found(target) == (NOTE, CONTENT + b" and more")

    def test_publish(self, target):
        """Published, it is at its place, and neither note nor lock nor anything else is left."""
        target.write_bytes(b"old")
        leave(target)
        stage = Partial(str(target))
        stage.taken_up()
        stage.file.write(b" and the rest")
        stage.file.close()
        stage.publish()
        assert target.read_bytes() == CONTENT + b" and the rest"
        assert beside(target) == []

    def test_cannot_be_published(self, target):
        """Where it can't take its place it is told, and it stays for a run that can."""
        leave(target)
        stage = Partial(str(target))
        (target / "sub").mkdir(parents=True)
        stage.file.close()
        with pytest.raises(IsADirectoryError):
            stage.publish()
        stage.drop()
        assert found(target) == (NOTE, CONTENT)

    def test_forget(self, target):
        """Forgotten, neither content nor note stays, and writing goes on at 0."""
        leave(target)
        stage = Partial(str(target))
        stage.forget()
        assert (stage.note, stage.size) == (None, 0)
        stage.file.write(b"other")
        assert os.fstat(stage.file.fileno()).st_size == 5
        finish(stage)
        assert beside(target) == []

    def test_remember_anew(self, target):
        """Another note takes the place of the first; the same one is not written again."""
        _, note = paths(target)
        leave(target)
        stage = Partial(str(target))
        stage.taken_up()
        number = note.stat().st_ino, note.stat().st_mtime_ns
        stage.remember(NOTE)
        assert (note.stat().st_ino, note.stat().st_mtime_ns) == number
        stage.remember("another")
        finish(stage)
        assert found(target) == ("another", CONTENT)

    @pytest.mark.parametrize("how", ["no descriptor", "full", "full in the middle", "too long"])
    def test_remember_where_it_cannot_be_written(self, target, monkeypatch, how):
        """A note that can't be written is an error; neither it nor the content stays then."""
        leave(target)
        stage = Partial(str(target))
        stage.taken_up()
        stage.file.write(CONTENT)

        def refuse(*unused, **also_unused):
            raise OSError(errno.ENOSPC, "full")

        note = "x" * 5000 if how == "too long" else "another"
        with monkeypatch.context() as patch:
            if how == "no descriptor":
                patch.setattr(os, "open", refuse)
            elif how == "full":
                patch.setattr(os, "write", refuse)
            elif how == "full in the middle":
                patch.setattr(os, "write", lambda *unused: 7)
            with pytest.raises(OSError, match=r"full|part|long"):
                stage.remember(note)
        finish(stage)
        assert beside(target) == []

    def test_no_byte(self, target):
        """A note without a byte of content doesn't stay, and nor does the empty file."""
        stage = Partial(str(target))
        stage.remember(NOTE)
        assert len(beside(target)) == 2
        finish(stage)
        assert beside(target) == []

    @pytest.mark.parametrize("note", [None, "another", NOTE])
    def test_not_taken_up(self, target, note):
        """Whoever writes without having read what is here begins at byte 0, with a note of its own.

        The old note is gone before the first byte is written, so that not even a run that is killed
        leaves it beside other content.
        """
        partial, note_path = paths(target)
        leave(target)
        stage = Partial(str(target))
        if note is not None:
            stage.remember(note)
            assert partial.read_bytes() == b""
        stage.file.write(b"other content")
        assert note_path.exists() is (note is not None)
        assert partial.read_bytes() == b"other content"
        finish(stage)
        assert found(target) == ((None, b"") if note is None else (note, b"other content"))

    def test_nothing_written(self, target):
        """A run that fails before it writes leaves what was there."""
        leave(target)
        finish(Partial(str(target)))
        assert found(target) == (NOTE, CONTENT)

    def test_cut_short(self, target):
        """A note counts only where there are as many bytes as when it was written."""
        partial, _ = paths(target)
        stage = Partial(str(target))
        stage.file.write(CONTENT)
        stage.remember(NOTE)
        finish(stage)
        os.truncate(partial, len(CONTENT) - 1)
        assert found(target) == (None, b"")

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
    @pytest.mark.parametrize(("name", "at"), [("open", 1), ("open", 2), ("read", 1), ("dup", 1)])
    def test_used_up(self, target, monkeypatch, name, at, number):
        """What is used up in this process says nothing of the file, which stays as it is."""
        leave(target)
        real = getattr(os, name)
        calls = []

        def refuse(*arguments):
            calls.append(arguments)
            if len(calls) == at:
                raise OSError(number, "used up")
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.raises(OSError, match="used up"):
                Partial(str(target))
        assert len(calls) == at
        assert found(target) == (NOTE, CONTENT)

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
    def test_no_locks(self, target, monkeypatch, number):
        """On a file system without locks no empty file is left, and what was there stays."""

        def refuse(*unused):
            raise OSError(number, "no locks")

        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", refuse)
            with pytest.raises(OSError, match="no locks"):
                Partial(str(target))
        assert beside(target) == []
        leave(target)
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", refuse)
            with pytest.raises(OSError, match="no locks"):
                Partial(str(target))
        assert found(target) == (NOTE, CONTENT)

    def test_no_second_descriptor(self, target, monkeypatch):
        """Where the descriptor can't be doubled, neither file nor note is left."""

        def refuse(*unused):
            raise OSError(errno.EMFILE, "used up")

        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", refuse)
            with pytest.raises(OSError, match="used up"):
                Partial(str(target))
        assert beside(target) == []
        leave(target)
        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", refuse)
            with pytest.raises(OSError, match="used up"):
                Partial(str(target))
        assert found(target) == (NOTE, CONTENT)

    def test_mode(self, target):
        """It is made with no more permission bits than it is to have, and gets the others."""
        before = os.umask(0o077)
        try:
            stage = Partial(str(target), 0o640)
            assert stat.S_IMODE(os.fstat(stage.file.fileno()).st_mode) == 0o640
            finish(stage)
        finally:
            os.umask(before)

    def test_secrets(self, target):
        """The note is for nobody else to read."""
        _, note = paths(target)
        leave(target)
        assert stat.S_IMODE(note.stat().st_mode) == 0o600

    def test_two_targets(self, target):
        """Each target has its own, also of the longest name that there can be."""
        other = target.with_name("o" * 255)
        leave(target, b"one", "1")
        leave(other, b"two", "2")
        assert (found(target), found(other)) == (("1", b"one"), ("2", b"two"))

    @pytest.mark.parametrize("name", [b"\xff\xfe", "ü".encode(), b"a\nb"])
    def test_odd_names(self, target, name):
        """A name that is no text is no harm."""
        odd = target.with_name(os.fsdecode(name))
        leave(odd)
        assert found(odd) == (NOTE, CONTENT)

    def test_no_folder(self, target):
        """Without the folder it is an error that the caller can make good."""
        with pytest.raises(FileNotFoundError):
            Partial(str(target / "sub"))


# What somebody, or an accident, has put in the place of the partial file.


def _gone(partial, note):
    partial.unlink()


def _link(partial, note):
    elsewhere = partial.with_name("elsewhere")
    elsewhere.write_bytes(b"precious")
    partial.unlink()
    partial.symlink_to(elsewhere)


def _dangling_link(partial, note):
    partial.unlink()
    partial.symlink_to(partial.with_name("nowhere"))


def _hard_link(partial, note):
    partial.with_name("elsewhere").write_bytes(b"precious")
    partial.unlink()
    partial.hardlink_to(partial.with_name("elsewhere"))


def _pipe(partial, note):
    partial.unlink()
    os.mkfifo(partial)


def _folder(partial, note):
    partial.unlink()
    partial.mkdir()


def _full_folder(partial, note):
    partial.unlink()
    (partial / "sub").mkdir(parents=True)


def _not_writable(partial, note):
    partial.chmod(0)


# The same with the note.


def _no_note(partial, note):
    note.unlink()


def _note_link(partial, note):
    copy = note.with_name("copy")
    note.rename(copy)
    note.symlink_to(copy)


def _note_pipe(partial, note):
    note.unlink()
    os.mkfifo(note)


def _note_folder(partial, note):
    note.unlink()
    note.mkdir()


def _note_full_folder(partial, note):
    note.unlink()
    (note / "sub").mkdir(parents=True)


def _note(content):
    def write(partial, note):
        note.write_bytes(content)

    return write


def _without(key):
    def write(partial, note):
        content = json.loads(note.read_text())
        del content[key]
        note.write_text(json.dumps(content))

    return write


def _with(key, value):
    def write(partial, note):
        note.write_text(json.dumps(json.loads(note.read_text()) | {key: value}))

    return write


TAMPERED = {
    "no partial file": _gone,
    "link": _link,
    "link to nowhere": _dangling_link,
    "hard link": _hard_link,
    "pipe": _pipe,
    "folder": _folder,
    "folder that isn't empty": _full_folder,
    "no note": _no_note,
    "note is a link": _note_link,
    "note is a pipe": _note_pipe,
    "note is a folder": _note_folder,
    "note is a folder that isn't empty": _note_full_folder,
    "note is empty": _note(b""),
    "note is garbage": _note(b"\x00\xff garbage"),
    "note is cut short": _note(b'{"kind": "pulpcore-futures part'),
    "note is deeply nested": _note(b"[" * 4096),
    "note is a list": _note(b"[1, 2]"),
    "note is a number": _note(b"1" * 4090),
    "note is too long": _with("note", "x" * 10_000),
    "note of another kind": _with("kind", "pulpcore-futures partial download 0"),
    "note without a kind": _without("kind"),
    "note without a note": _without("note"),
    "note is no text": _with("note", 7),
    "note is null": _with("note", None),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_thrown_away(target, tamper):
    """What isn't ours, or has no note of ours, is not gone on with, and doesn't stop a download."""
    partial, note = paths(target)
    leave(target)
    tamper(partial, note)
    writer = FileWriter(target, resume=True)
    with writer:
        assert writer.recall() is None
        assert list(writer.replay(100)) == []
        writer.remember("new")
        writer.append(b"new content")
    assert target.read_bytes() == b"new content"
    assert target.is_file()
    assert not target.is_symlink()
    # A folder is somebody's, and maybe not empty: it is let be.
    assert not os.path.lexists(partial) or partial.is_dir()
    assert not os.path.lexists(note) or note.is_dir()


@pytest.mark.parametrize("tamper", [_full_folder, _note_full_folder])
def test_folder_stays(target, tamper):
    """A folder that isn't empty is never thrown away."""
    partial, note = paths(target)
    leave(target)
    tamper(partial, note)
    with FileWriter(target, resume=True) as writer:
        writer.append(b"new content")
    assert (partial / "sub").is_dir() or (note / "sub").is_dir()


@pytest.mark.parametrize("tamper", [_link, _hard_link])
def test_what_a_link_leads_to_stays(target, tamper):
    """A file that a link leads to isn't written to, whoever made the link."""
    partial, note = paths(target)
    leave(target)
    tamper(partial, note)
    stage = Partial(str(target))
    stage.file.write(b"new content")
    finish(stage)
    assert partial.with_name("elsewhere").read_bytes() == b"precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_other_owner(target):
    """What belongs to somebody else isn't gone on with."""
    partial, _ = paths(target)
    leave(target)
    os.chown(partial, 65534, 65534)
    assert found(target) == (None, b"")


class TestTwoAtOnce:
    def test_second_is_refused(self, target):
        """While one writes, another is told so, and changes nothing."""
        leave(target)
        first = Partial(str(target))
        with pytest.raises(BlockingIOError):
            Partial(str(target))
        assert (first.note, first.size) == (NOTE, len(CONTENT))
        finish(first)
        assert found(target) == (NOTE, CONTENT)

    def test_other_process(self, target):
        """So it is for another process."""
        leave(target)

        def work():
            with pytest.raises(BlockingIOError):
                Partial(str(target))

        first = Partial(str(target))
        assert forked(work) == 0
        finish(first)

    def test_after_the_first_is_through(self, target, monkeypatch):
        """One that opened the file just before it was published doesn't write to it then."""
        first = Partial(str(target))
        first.file.write(b"first")
        first.file.close()
        flock = fcntl.flock

        def late(descriptor, how):
            monkeypatch.setattr(fcntl, "flock", flock)
            first.publish()
            flock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", late)
        second = Partial(str(target))
        assert (second.note, second.size) == (None, 0)
        second.file.write(b"2")
        assert target.read_bytes() == b"first"
        second.file.close()
        second.publish()
        assert target.read_bytes() == b"2"

    def test_three_at_once(self, target, monkeypatch):
        """Nor does it take the file from a third, which began in between: no two have the same."""
        first = Partial(str(target))
        first.file.close()
        flock = fcntl.flock
        third = []

        def late(descriptor, how):
            monkeypatch.setattr(fcntl, "flock", flock)
            first.publish()
            third.append(Partial(str(target)))
            third[0].file.write(b"third")
            flock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", late)
        try:
            second = Partial(str(target))
        except BlockingIOError:
            pass
        else:
            second.file.write(b"par")
            finish(second)
        third[0].file.close()
        third[0].publish()
        assert target.read_bytes() == b"third"

    def test_never_publishes_what_another_wrote(self, target):
        """A partial file that was taken away, and is another's now, isn't put in place as ours."""
        partial, _ = paths(target)
        target.write_bytes(b"old")
        stage = Partial(str(target))
        stage.file.write(b"whole")
        stage.file.close()
        partial.unlink()
        partial.write_bytes(b"half of ano")
        with pytest.raises(OSError):  # noqa: PT011 - whichever it is
            stage.publish()
        stage.drop()
        assert target.read_bytes() == b"old"

    def test_made_at_the_same_moment(self, target, monkeypatch):
        """Where another makes the file just before this one does, that is found."""
        real = os.open
        there = []

        def late(path, flags, *arguments):
            if flags & os.O_CREAT and not there:
                there.append(real(path, flags, *arguments))
            return real(path, flags, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", late)
            stage = Partial(str(target))
        os.close(there[0])
        stage.file.write(b"content")
        stage.publish()
        assert target.read_bytes() == b"content"

    def test_dropped_twice(self, target):
        """To drop it again changes nothing, though its descriptor may be another file's by then."""
        stage = Partial(str(target))
        finish(stage)
        other = Partial(str(target))
        stage.drop()
        other.file.write(b"content")
        other.publish()
        assert target.read_bytes() == b"content"

    def test_never_to_be_had(self, target, monkeypatch):
        """Where others are always quicker, it is told, and another way is found."""
        monkeypatch.setattr(Partial, "_is_there", lambda *unused: False)
        with pytest.raises(BlockingIOError):
            Partial(str(target))
        with FileWriter(target, resume=True) as writer:
            writer.append(b"new")
        assert target.read_bytes() == b"new"

    def test_many_threads(self, target):
        """Of many at once, one gets it at any time."""
        begin = threading.Barrier(8)
        got = []

        def work():
            begin.wait()
            for _ in range(30):
                try:
                    stage = Partial(str(target))
                except BlockingIOError:
                    continue
                got.append(stage.size)
                stage.remember(NOTE)
                stage.forget()
                finish(stage)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert got
        assert set(got) == {0}
        assert beside(target) == []


def test_error_leaves_nothing_open(target, monkeypatch):
    """Whatever fails while it is opened, no descriptor and so no lock is left."""

    def refuse(*unused):
        raise OSError(errno.EIO, "broken")

    for module, name in [(fcntl, "flock"), (os, "fstat"), (os, "dup"), (os, "lseek")]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refuse)
            with pytest.raises(OSError, match="broken"):
                Partial(str(target))
    assert found(target) == (None, b"")


class TestForks:
    def test_names(self, target):
        """Children of one process take other names than it and one another."""

        def name():
            stage = Temporary(str(target))
            (found,) = {path.name for path in target.parent.iterdir()} - before
            finish(stage)
            return found

        before = set()
        names = []
        for number in range(3):
            path = target.with_name(f"name{number}")
            before = {each.name for each in target.parent.iterdir()}
            assert forked(lambda path=path: path.write_text(name())) == 0
            names.append(path.read_text())
        assert len(set(names)) == 3

    def test_lock(self, target):
        """A child that lives on doesn't keep the lock of a file of its parent."""
        leave(target)
        stage = Partial(str(target))
        ours, theirs = socket.socketpair()
        child = os.fork()
        if not child:
            ours.close()
            theirs.send(b"I live")
            theirs.recv(1)
            os._exit(0)
        theirs.close()
        try:
            assert ours.recv(100)
            # As a parent that dies does: nothing is unlocked.
            os.close(stage._lock)
            staging._held.pop(stage._lock)
            stage.file.close()
            assert found(target) == (NOTE, CONTENT)
        finally:
            ours.close()
            os.waitpid(child, 0)

    def test_unlocked(self, target, monkeypatch):
        """Nor does a child that has the descriptor all the same keep the lock of a file let go."""
        leave(target)
        monkeypatch.setattr(staging, "_held", {})
        stage = Partial(str(target))
        twin = os.dup(stage._lock)
        finish(stage)
        assert found(target) == (NOTE, CONTENT)
        os.close(twin)

    @pytest.mark.parametrize("kind", [Temporary, Partial])
    def test_drop(self, target, kind):
        """A child that drops what it has of its parent's file leaves it where it is."""
        stage = kind(str(target))
        stage.file.write(CONTENT)
        assert forked(stage.drop) == 0
        stage.publish()
        assert target.read_bytes() == CONTENT
        assert beside(target) == []


def test_never_ours(target, monkeypatch):
    """One that is taken away again and again is given up."""
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    with pytest.raises(BlockingIOError):
        Partial(str(target))
