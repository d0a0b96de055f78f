"""Tests of the state machine of a run: its steps, claims, and exchanged writers."""

import copy
import errno
import gc
import io
import threading
import time
import weakref
from contextvars import copy_context
from typing import Generic

import pytest
from urllib3.util import Retry

from pulpcore.plugin.download.futures import (
    BufferWriter,
    Download,
    DownloadFailed,
    FileWriter,
    SizeMismatch,
    SizeValidation,
    Timeout,
    Validation,
    Writer,
)
from pulpcore.plugin.download.futures.engine import machine
from pulpcore.plugin.download.futures.engine.attempt import Attempt
from pulpcore.plugin.download.futures.engine.machine import MOVES, begin
from pulpcore.plugin.download.futures.engine.protocol import Protocol, protocol_of
from pulpcore.plugin.download.futures.event import Event, EventRouter
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, current, scope

NEW = b"abcdef"
SECONDS = 20


def transient(reason="try again"):
    """Make a transient error."""
    error = DownloadFailed(reason)
    error.transient = True
    return error


class Scripted(Download):
    """A download that follows a script: for each attempt a list of buffers, errors, functions."""

    def __init__(self, *scripts, writer=None):
        super().__init__("test://x", BufferWriter() if writer is None else writer)
        self.scripts = list(scripts)

    def _send(self):
        for step in self.scripts.pop(0):
            if isinstance(step, bytes):
                self._write(step)
            elif isinstance(step, BaseException):
                try:
                    raise step
                finally:
                    # Otherwise the error and this frame would reference each other.
                    del step
            else:
                step()


def ends(download):
    """Collect the event names of a download."""
    seen = []
    for name in (Event.PREPARED, Event.ERROR, Event.RESTARTED, Event.SUCCEEDED, Event.FAILED):
        download.register(name, lambda event: seen.append(event.name))
    return seen


# The transition table


def test_every_state_is_reached_and_left():
    """Each state of the machine but the first can be reached, and each but the ends has a step."""
    reached = {state for moves in MOVES.values() for state in moves.values()}
    assert reached | {machine.PREPARE} == {*MOVES, machine.SUCCEEDED}
    assert machine.STEPS.keys() == MOVES.keys()


# Steps


def test_advance_without_a_wait():
    """A run without waits ends within one call of advance()."""
    download = Scripted([NEW])
    life = begin(download)
    assert life.advance() is None
    assert life.state == machine.SUCCEEDED
    assert download.writer.getvalue() == NEW


def test_a_wait_holds_no_thread():
    """advance() returns the time of a retry instead of waiting. Any thread may continue the run."""
    download = Scripted([b"abc", transient()], [NEW])
    download.retry = Retry(total=1, backoff_factor=3600, backoff_max=3600)
    seen = ends(download)
    life = begin(download)
    before = time.monotonic()
    until = life.advance()
    assert before < until <= time.monotonic() + 3600
    thread = threading.Thread(target=life.advance)
    thread.start()
    thread.join(SECONDS)
    assert seen == ["PREPARED", "ERROR", "RESTARTED", "SUCCEEDED"]
    assert download.writer.getvalue() == NEW


def test_the_rate_limiter_holds_no_thread():
    """advance() returns the rate limiter's time instead of waiting for the first request."""

    class Limiter:
        def delay(self):
            return 1000

    download = Scripted([NEW])
    download.rate_limiter = Limiter()
    life = begin(download)
    assert life.advance() > time.monotonic() + 900
    assert life.advance() is None


def test_no_wait_is_longer_than_the_total_limit():
    """advance() never returns a time after the total limit."""
    download = Scripted([transient()])
    download.retry = Retry(total=1, backoff_factor=3600, backoff_max=3600)
    download.timeout = Timeout(total=600)
    parent = Cancellation()
    with scope(parent):
        life = begin(download)
    assert life.advance() <= time.monotonic() + 600
    parent.cancel("shut down")
    with pytest.raises(DownloadFailed, match="shut down"):
        life.advance()


def test_the_total_limit_ends_a_wait():
    """After the total limit a life that waited fails."""
    download = Scripted([transient()])
    download.retry = Retry(total=1, backoff_factor=3600, backoff_max=3600)
    download.timeout = Timeout(total=0.05)
    life = begin(download)

    def go_on():
        until = 0
        while until is not None:
            until = life.advance()
            while until is not None and time.monotonic() < until:
                time.sleep(0.001)

    with pytest.raises(DownloadFailed, match="total limit"):
        go_on()


def test_cancelled_while_it_waits():
    """A run that is cancelled during a wait fails in its next step and sends nothing more."""
    parent = Cancellation()
    download = Scripted([transient()])
    download.retry = Retry(total=1, backoff_factor=3600, backoff_max=3600)
    seen = ends(download)
    with scope(parent):
        life = begin(download)
    life.advance()
    parent.cancel("shut down")
    assert life.token.reason == "shut down"
    with pytest.raises(DownloadFailed, match="shut down"):
        life.advance()
    assert seen == ["PREPARED", "ERROR", "FAILED"]
    assert life.state == machine.FAILED


def test_dropped_while_it_waits(tmp_path):
    """A waiting run that is abandoned leaves nothing behind and publishes Failed."""
    download = Scripted([b"abc", transient()], writer=FileWriter(tmp_path / "a"))
    download.retry = Retry(total=1, backoff_factor=3600, backoff_max=3600)
    seen = ends(download)
    life = begin(download)
    life.advance()
    assert list(tmp_path.iterdir())
    del life
    gc.collect()
    assert seen[-1] == "FAILED"
    assert not list(tmp_path.iterdir())


def test_the_token_is_that_of_the_step():
    """The run's token is the current one within a step and not between two steps."""
    download = Scripted([lambda: seen.append(current()), NEW])
    seen = []
    life = begin(download)
    life.advance()
    assert seen == [life.token]
    assert current() is None


@pytest.mark.parametrize("error", [StopIteration("bug"), GeneratorExit(), KeyboardInterrupt()])
def test_whatever_is_raised_comes_out_as_it_is(error):
    """An exception of a step, even StopIteration, is raised unchanged."""
    download = Scripted([error])
    seen = ends(download)
    with pytest.raises(type(error)) as caught:
        download()
    assert caught.value is error
    assert seen == ["PREPARED", "FAILED"]


def test_nothing_keeps_a_download_alive():
    """A finished download is freed with its last reference, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        download = Scripted([b"abc", transient()], [NEW])
        download.retry = Retry(total=1, backoff_factor=0)
        download()
        gone = weakref.ref(download)
        del download
        assert gone() is None
    finally:
        gc.enable()


def test_contextvars_of_the_caller_stay():
    """A run copies the caller's context variables, so an interrupt leaves none behind."""
    download = Scripted([lambda: seen.append(copy_context()), NEW])
    seen = []
    download()
    assert current() is None
    assert len(seen) == 1


# Interrupts


@pytest.mark.parametrize("name", [Event.PREPARED, Event.FETCHED, Event.SUCCEEDED, Event.FAILED])
def test_interrupted_anywhere(name):
    """After an interrupt in any handler a download can be called again."""
    download = Scripted([NEW, *([transient()] if name == Event.FAILED else [])], [NEW])

    def interrupt(event):
        download.router.unregister(name, interrupt)
        raise KeyboardInterrupt

    download.register(name, interrupt)
    with pytest.raises(KeyboardInterrupt) as kept:
        download()
    # The traceback holds the frames of the run.
    assert kept.tb is not None
    download.scripts = [[NEW]]
    download()
    assert download.writer.getvalue() == NEW


def test_interrupted_while_its_claims_are_released(monkeypatch):
    """An interrupt at the very end of a run doesn't leave the download in the running state."""
    download = Scripted([NEW], [NEW])

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pulpcore.plugin.download.futures.engine.claim.Claims.release", interrupted)
        with pytest.raises(KeyboardInterrupt) as kept:
            download()
    download()
    assert kept.tb is not None
    assert download.writer.getvalue() == NEW


# Claims


def share(make, first_script, second_script):
    """Make two downloads that share an object; the second runs in the middle of the first."""
    first, second = Scripted(first_script), Scripted(second_script)
    make(first, second)
    errors = []

    def run_second(event):
        with pytest.raises(RuntimeError, match="with a download that is running") as info:
            second()
        errors.append(info.value)

    first.register(Event.FETCHED, run_second)
    return first, second, errors


def same_writer(first, second):
    """Return one writer for both."""
    second.writer = first.writer


def same_validation(first, second):
    """Return one validation for both."""
    first.validations.append(SizeValidation(6))
    second.validations += first.validations


@pytest.mark.parametrize("make", [same_writer, same_validation])
def test_claimed(make):
    """A run that shares a writer or validation with a running one fails without touching it."""
    first, second, errors = share(make, [b"abc", b"def"], [b"x"])
    seen = ends(second)
    first()
    assert len(errors) == 2
    assert seen == ["PREPARED", "FAILED"] * 2
    assert first.writer.getvalue() == NEW
    assert second.scripts
    # Afterwards the writer is free.
    second.validations.clear()
    second()
    assert second.writer.getvalue() == b"x"


def test_claimed_and_no_file_is_touched(tmp_path):
    """A run refused a shared writer neither discards its content nor the file at the path."""
    writer = FileWriter(tmp_path / "a")
    first, second, errors = share(same_writer, [b"abc", b"def"], [b"x"])
    first.writer = second.writer = writer
    first()
    assert len(errors) == 2
    assert (tmp_path / "a").read_bytes() == NEW


@pytest.mark.parametrize("copied", [False, True])
def test_claimed_file_object(copied):
    """A run whose writer has the file object of a running one fails without touching the file."""
    file = io.BytesIO()

    def same_file(first, second):
        first.writer = Writer(file)
        second.writer = copy.copy(first.writer) if copied else Writer(file)

    first, second, errors = share(same_file, [b"abc", b"def"], [b"x"])
    first()
    assert len(errors) == 2
    assert file.getvalue() == NEW
    assert second.scripts


def test_claimed_by_a_later_attempt():
    """If a handler of Error sets the writer of another run, it is refused and that run goes on."""
    winner = Scripted()
    loser = Scripted([b"x", transient()], [b"y"])
    loser.retry = Retry(total=1, backoff_factor=0)
    mine = loser.writer
    loser.register(Event.ERROR, lambda event: setattr(loser, "writer", winner.writer))

    def loser_runs():
        with pytest.raises(RuntimeError, match="shares"):
            loser()

    winner.scripts = [[b"abc", loser_runs, b"def"]]
    winner()
    assert winner.writer.getvalue() == NEW
    assert not mine.is_open


# Exchanges


@pytest.mark.parametrize("name", [Event.PREPARED, Event.SENT, Event.REPLIED])
def test_exchanged_before_the_first_byte(name, tmp_path):
    """A writer or validation that is set before the first byte is used in that attempt."""
    download = Scripted([NEW], writer=FileWriter(tmp_path / "old"))
    size = SizeValidation(6)
    size.update(b"used")

    def exchange(event):
        download.writer = FileWriter(tmp_path / "new")
        download.validations.append(size)

    download.register(name, exchange)
    download()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"new": NEW}
    assert size.actual == 6


def test_exchanged_router():
    """The router that a handler of Sent has set calls the handlers of Replied."""
    download, replies = Scripted([NEW]), []

    def exchange(event):
        download.router = EventRouter()
        download.register(Event.REPLIED, replies.append)

    download.register(Event.SENT, exchange)
    download()
    assert len(replies) == 1


@pytest.mark.parametrize("retry", [None, Retry(total=1, backoff_factor=0)])
@pytest.mark.parametrize("script", [[b"abc", b"def"], [NEW]], ids=["middle", "end"])
def test_exchanged_after_bytes_had_come(script, retry, tmp_path):
    """Replacing the writer after the first byte ends the attempt; the next begins at 0."""
    download = Scripted(script, script, writer=FileWriter(tmp_path / "old"))
    download.retry = retry
    seen = ends(download)

    def exchange(event):
        download.router.unregister(Event.FETCHED, exchange)
        download.writer = FileWriter(tmp_path / "new")

    download.register(Event.FETCHED, exchange)
    download()
    assert seen == ["PREPARED", "ERROR", "RESTARTED", "SUCCEEDED"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"new": NEW}


def test_a_validation_that_is_added_later_sees_all():
    """A validation added after the first byte sees the whole content in the next attempt.

    The attempt that has begun without it ends at once.
    """
    download = Scripted([b"abc", b"def"], [b"abc", b"def"])
    size = SizeValidation(6)
    offsets = []

    def add(event):
        offsets.append(event.offset)
        if size not in download.validations:
            download.validations.append(size)

    download.register(Event.FETCHED, add)
    download()
    assert size.actual == 6
    assert offsets == [0, 0, 3]


def test_exchanged_again_and_again():
    """A handler that replaces the writer each time can't make an endless run."""
    download = Scripted(*[[b"abc", b"def"]] * 5)
    download.register(Event.FETCHED, lambda event: setattr(download, "writer", BufferWriter()))
    with pytest.raises(DownloadFailed, match="replaced"):
        download()
    assert len(download.scripts) == 3


class TwoWays(Scripted):
    """Content that can be read in two ways. It notes for each attempt which of them was used."""

    class _protocol(Protocol):  # noqa: N801 - the name of the attribute
        has_alternative = True

    def __init__(self, *scripts):
        super().__init__(*scripts)
        self.validations.append(SizeValidation(len(NEW)))
        self.ways = []

    def _send(self):
        self.ways.append(Attempt.of(self).protocol.is_alternative)
        super()._send()


@pytest.mark.parametrize(
    ("scripts", "ways"),
    [
        ([[NEW]], [False]),
        ([[b"long" * 9], [NEW]], [False, True]),
        ([[b"long" * 9], [transient()], [NEW]], [False, True, True]),
    ],
)
def test_the_other_way(scripts, ways):
    """After a mismatch the protocol reads the content the other way, and costs no repair.

    A retry of that attempt stays with the other way.
    """
    download = TwoWays(*scripts)
    download.retry, download.retries = Retry(total=1, backoff_factor=0), 0
    download()
    assert (download.ways, download.writer.getvalue()) == (ways, NEW)


def test_only_one_way():
    """A protocol that knows no other way isn't asked for it after a mismatch."""
    download = Scripted([b"x"], [NEW])
    download.validations.append(SizeValidation(len(NEW)))
    download.retry, download.retries = None, 0
    with pytest.raises(SizeMismatch):
        download()
    assert len(download.scripts) == 1


def test_neither_way():
    """If both ways mismatch, the first mismatch is raised."""
    download = TwoWays([b"x"], [b"yy"], [NEW])
    download.retry, download.retries = None, 0
    with pytest.raises(SizeMismatch) as caught:
        download()
    assert (caught.value.actual, download.ways) == (1, [False, True])


def test_the_other_way_keeps_no_download_alive():
    """After an attempt in the other way, reference counting frees the download."""
    gc.collect()
    gc.disable()
    try:
        download = TwoWays([b"x"], [NEW])
        download()
        gone = weakref.ref(download)
        del download
        assert gone() is None
    finally:
        gc.enable()


def test_other_failures_do_not_use_the_other_way():
    """Only a mismatch makes the protocol read the other way, and only if it can begin again."""
    download = TwoWays([DownloadFailed("no")], [NEW])
    download.retry = None
    with pytest.raises(DownloadFailed, match="no"):
        download()
    assert download.ways == [False]

    class OneWay(Validation):
        def update(self, buffer):
            pass

    download = TwoWays([b"x"], [NEW])
    download.validations.append(OneWay())
    with pytest.raises(SizeMismatch):
        download()
    assert download.ways == [False]


@pytest.mark.parametrize(
    ("repaired", "ways"),
    [
        # The handler repairs at the first error, and the same way is right then.
        ([True], [False, False]),
        # The repair doesn't help. The other way is still there.
        ([True, False, False], [False, False, True]),
        # Both ways have failed. The repair tries the first one again.
        ([False, True], [False, True, False]),
        # There is no third way.
        ([False, True, False], [False, True, False]),
        # The budget of repairs is spent, and a handler can't repair instead of the other way.
        ([True, True, False], [False, False, True]),
    ],
)
def test_repaired_instead_of_the_other_way(repaired, ways):
    """A repair asks again in the same way. The other way is used once a run."""
    is_right = len(ways) > len(repaired)
    download = TwoWays(*[[b"x"] for _ in repaired], [NEW])
    download.retry = None
    answers = iter(repaired)
    download.register(Event.ERROR, lambda event: setattr(event, "repaired", next(answers)))
    if is_right:
        download()
    else:
        with pytest.raises(SizeMismatch):
            download()
    assert download.ways == ways
    assert next(answers, None) is None


class Resuming(Scripted):
    """A download whose protocol can always resume."""

    _protocol = type("P", (Protocol,), {"can_resume": lambda *_: True})


def test_exchanged_at_error():
    """If a handler of Error replaces the writer, the next attempt doesn't resume."""
    download = Resuming([b"abc", transient()], [NEW])
    download.retry = Retry(total=1, backoff_factor=0)
    download.register(Event.ERROR, lambda event: setattr(download, "writer", BufferWriter()))
    download()
    assert download.writer.getvalue() == NEW


def test_a_writer_that_was_opened_again():
    """If a writer was reopened with another file, the next attempt doesn't resume."""
    download = Resuming([b"abc", transient()], [NEW])
    download.retry = Retry(total=1, backoff_factor=0)

    def again(event):
        download.writer.discard()
        download.writer.open()

    download.register(Event.ERROR, again)
    download()
    assert download.writer.getvalue() == NEW


def test_a_note_of_an_earlier_run_in_the_middle(tmp_path):
    """A writer set at Replied begins at byte 0, even if it has a partial file."""

    class Knows(Protocol):
        def recall(self, download, note):
            return True

    class Noting(Scripted):
        _protocol = Knows

    target = FileWriter(tmp_path / "a", resume=True)
    first = Noting([lambda: Attempt.of(first).note("v1"), b"abc", transient()], writer=target)
    with pytest.raises(DownloadFailed):
        first()
    assert len(list(tmp_path.iterdir())) == 2
    second = Noting([NEW], writer=BufferWriter())
    second.register(Event.REPLIED, lambda event: setattr(second, "writer", target))
    second()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": NEW}


def test_a_note_that_the_protocol_does_not_know(tmp_path):
    """A download whose protocol can't resume begins at byte 0, even if there is a partial file."""
    target = FileWriter(tmp_path / "a", resume=True)
    first = Scripted([lambda: Attempt.of(first).note("v1"), b"old", transient()], writer=target)
    with pytest.raises(DownloadFailed):
        first()
    assert len(list(tmp_path.iterdir())) == 2
    second = Scripted([NEW], writer=FileWriter(tmp_path / "a", resume=True))
    second()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": NEW}


def test_a_note_without_bytes(tmp_path):
    """A run that fails before its first byte leaves no note."""

    class Knows(Protocol):
        def recall(self, download, note):
            return True

    class Noting(Scripted):
        _protocol = Knows

    def run(*script):
        download = Noting(list(script), writer=FileWriter(tmp_path / "a", resume=True))
        download.scripts[0] = [
            step if step != "note" else lambda: Attempt.of(download).note("v1") for step in script
        ]
        with pytest.raises(DownloadFailed):
            download()

    run("note", transient())
    run(b"other bytes", transient())
    assert not list(tmp_path.iterdir())


def test_a_note_that_cannot_be_written(tmp_path):
    """If the note can't be written, the download fails and says why."""

    class Full(BufferWriter):
        resume = True

        def remember(self, note):
            if note:
                raise OSError(errno.ENOSPC, "No space left on device")

    download = Scripted([lambda: Attempt.of(download).note("v1"), NEW], writer=Full())
    with pytest.raises(DownloadFailed, match="can't write to Full: No space"):
        download()


def test_only_what_has_seen_bytes_must_be_reset():
    """A pipe may replace a writer, because the pipe has no bytes that must be undone."""

    class Pipe(io.RawIOBase):
        content = b""

        def writable(self):
            return True

        def write(self, buffer):
            self.content += bytes(buffer)
            return len(buffer)

    class OnlyUpdate(Validation):
        def update(self, buffer):
            pass

    pipe = Pipe()
    download = Scripted([b"abc", transient()], [NEW])
    download.retry = Retry(total=1, backoff_factor=0)

    def exchange(event):
        download.writer = Writer(pipe)
        download.validations.append(OnlyUpdate())

    download.register(Event.ERROR, exchange)
    download()
    assert pipe.content == NEW


# Errors of other downloads


def test_facts_of_another_download():
    """An error of a download that ran in a handler keeps its own facts and download."""
    inner = Scripted([b"abc", DownloadFailed("why")])
    outer = Scripted([b"x", inner])
    with pytest.raises(DownloadFailed) as caught:
        outer()
    assert caught.value.download is inner
    assert (caught.value.facts.received, caught.value.facts.attempt) == (3, 1)


def test_facts_of_another_download_that_knows_none():
    """An error that names another download gets no facts of this one."""
    other = Scripted([])
    outer = Scripted([DownloadFailed(other, "why")])
    with pytest.raises(DownloadFailed) as caught:
        outer()
    assert (caught.value.download, caught.value.facts) == (other, None)


# The namespace of plugins


def plain_names():
    """Return a download's names with one underscore, without those of every generic class."""
    download = Scripted([NEW])
    download()
    return {
        name
        for name in {*dir(Download), *vars(download)} - set(dir(Generic))
        if name.startswith("_") and not name.startswith(("__", "_Download__", "_abc_"))
    }


def test_names_with_one_underscore():
    """A download has only the three documented names with one underscore."""
    assert plain_names() == {"_send", "_write", "_protocol"}


@pytest.mark.parametrize(
    "name",
    [
        *("_run", "_status", "_host", "_position", "_received", "_protocol", "_context", "_life"),
        *("_attempt", "_content", "_record", "_expect", "_restart", "_is_begun", "_claims"),
    ],
)
def test_names_of_plugins(name):
    """A subclass may use any other names for its attributes, in class and object."""
    kind = type("Plugin", (Scripted,), {name: "mine"})
    download = kind([b"abc", transient()], [NEW])
    setattr(download, name, "mine")
    download.retry = Retry(total=1, backoff_factor=0)
    download()
    assert download.writer.getvalue() == NEW
    assert getattr(download, name) == "mine"


@pytest.mark.parametrize("name", ["position", "expected_size", "reply"])
def test_public_names_of_plugins(name):
    """A subclass may define public names that the library added after 2017."""

    class Plugin(Scripted):
        def __init__(self, *scripts):
            super().__init__(*scripts)
            setattr(self, name, "mine")

    download = Plugin([NEW])
    download()
    assert download.writer.getvalue() == NEW
    assert getattr(type("P", (Scripted,), {name: 3})([]), name) == 3


def test_documentation_of_what_is_derived():
    """A derived attribute, looked up on the class, has its documentation."""
    assert "bytes received so far" in Download.position.__doc__


def test_protocol_of_a_class():
    """A download uses the protocol of its nearest base class that has one."""

    class Mine(Protocol):
        pass

    class Plugin(Scripted):
        _protocol = Mine

    class Shadowing(Plugin):
        _protocol = "mine"

    assert protocol_of(Shadowing) is protocol_of(Plugin) is Mine
    assert protocol_of(Scripted) is Protocol


def test_send_without_a_run():
    """A 2017 class that overrides __call__ and calls _send itself has its content written."""

    class Own(Scripted):
        def __call__(self):
            with self.writer:
                self._send()

    download = Own([b"abc", b"def"])
    download.validations.append(SizeValidation(6))
    download()
    assert download.writer.getvalue() == NEW
    assert download.validations[0].actual == 6


def test_progress_while_it_waits():
    """Time that a download spends waiting doesn't count in its speed."""
    looks = []

    class Limiter:
        def delay(self):
            return 0.001 if looks else 0

    def look():
        looks.append(Attempt.of(download).progress())

    def wait():
        Attempt.of(download).wait_for_turn()

    download = Scripted([b"abc", wait, look, wait, look, look, b"def", look])
    download.rate_limiter = Limiter()
    download()
    assert looks == [3, None, 3, 6]
