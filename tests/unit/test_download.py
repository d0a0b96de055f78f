"""Tests of the life of one download: its events, their order, and what it leaves."""

import contextlib
import errno
import hashlib
import io
import logging
import re
import tempfile
import threading
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import Retry

from pulpcore.plugin.download.futures import (
    BufferWriter,
    DigestValidation,
    Download,
    DownloadError,
    DownloadFailed,
    FileWriter,
    NotFound,
    Settings,
    SizeValidation,
    Timeout,
    Validation,
    ValidationError,
    Writer,
)
from pulpcore.plugin.download.futures.context import Context, Resource
from pulpcore.plugin.download.futures.engine import backoff, speed, steps
from pulpcore.plugin.download.futures.engine.attempt import Attempt, record_of
from pulpcore.plugin.download.futures.engine.host import Host
from pulpcore.plugin.download.futures.engine.protocol import Protocol, validate
from pulpcore.plugin.download.futures.event import Event
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, current, scope

URL = "fake://bob:hunter2@example.org/a?token=t0ps3cret"
SHOWN = "fake://example.org/a?token=***"
OLD = b"old content"
NEW = b"abcdef"
NAMES = [
    "PREPARED",
    "SENT",
    "REPLIED",
    "FETCHED",
    "RESTARTED",
    "SUCCEEDED",
    "FAILED",
    "ERROR",
]
FULL = OSError(errno.ENOSPC, "No space left on device")
NOW = Retry(total=3, backoff_factor=0)


class FakeProtocol(Protocol):
    """A protocol that answers the engine as the download says."""

    def check(self, download):
        """Validate the settings of the download."""
        validate(**download.settings)
        if download.problem:
            raise ValueError(download.problem)

    def host(self, download):
        """Return the host."""
        return download.hosted

    def is_up(self, error):
        """Return what the error says, unless the test set something else."""
        return getattr(error, "is_up", super().is_up(error))

    def has_content(self, download):
        """Return whether there is content."""
        return download.brings

    def can_resume(self, download):
        """Return whether it resumes."""
        return download.resumes

    def recall(self, download, note):
        """Recognize one version."""
        return note == download.known


class Fake(Download):
    """Follows a script: a list of steps for each attempt, whose last list is repeated.

    A step is a buffer to write, an exception to raise, or a function to call.
    """

    _protocol = FakeProtocol
    hosted = problem = known = None
    brings = True
    settings: ClassVar = {}

    def __init__(self, *scripts, writer=None, resumes=False):
        super().__init__(URL, BufferWriter() if writer is None else writer)
        self.scripts = scripts or [[b"abc", b"def"]]
        self.resumes = resumes
        self.sent = 0

    def _send(self):
        script = self.scripts[min(self.sent, len(self.scripts) - 1)]
        self.sent += 1
        for step in script:
            if isinstance(step, bytes):
                self._write(step)
            elif isinstance(step, BaseException):
                raise step
            else:
                step()


class Flaky(BufferWriter):
    """A writer that fails at given calls, counted from 1 for each method, after half a write."""

    def __init__(self, fail=(), error=FULL):
        super().__init__()
        self.fail = dict(fail)
        self.error = error
        self.calls = dict.fromkeys(("open", "append", "close", "discard"), 0)

    def _count(self, name):
        self.calls[name] += 1
        if self.calls[name] == self.fail.get(name):
            raise self.error

    def open(self):
        """Begin."""
        self._count("open")
        super().open()

    def append(self, buffer):
        """Write half of the buffer before failing."""
        half = len(buffer) // 2
        super().append(buffer[:half])
        self._count("append")
        super().append(buffer[half:])
        return len(buffer)

    def close(self):
        """Publish."""
        self._count("close")
        super().close()

    def discard(self):
        """Discard."""
        super().discard()
        self._count("discard")


class Keep(Validation):
    """A validation that records its updates and fails at some of them, counted from 1."""

    def __init__(self, fail=(), error=None):
        super().__init__()
        self.fail = fail
        self.error = error or ValidationError(reason="refused")
        self.updates = 0
        self.seen = b""
        self.applied = 0

    def update(self, buffer):
        """Record the buffer."""
        self.updates += 1
        self.seen += buffer
        if self.updates in self.fail:
            raise self.error

    def apply(self):
        """Count the call."""
        self.applied += 1

    def reset(self):
        """Clear the record."""
        self.seen = b""


class OnlyUpdate(Validation):
    """A validation that can't be reset."""

    def update(self, buffer):
        """Record something."""


class Pipe(io.RawIOBase):
    """A file object that can't seek."""

    def __init__(self):
        self.content = b""

    def writable(self):
        """Return true."""
        return True

    def write(self, buffer):
        """Record the bytes."""
        self.content += bytes(buffer)
        return len(buffer)


class Broken(Settings):
    """An invalid setting."""

    def validate(self):
        """Raise."""
        raise ValueError("name: why")


class Counted(Resource):
    """A resource that counts how often it was closed."""

    closed = 0

    def close(self):
        """Count the close."""
        self.closed += 1


def transient(reason="try again"):
    """Make a transient error."""
    error = DownloadFailed(reason)
    error.transient = True
    return error


def listen(download):
    """Collect the events of a download."""
    events = []
    for name in NAMES:
        download.register(name, events.append)
    return events


def names(events):
    """Return the names of events."""
    return [event.name for event in events]


def repair(download, times=100):
    """Register a handler that repairs. Return the errors that it saw."""
    errors = []

    def handler(event):
        errors.append(event.error)
        event.repaired = len(errors) <= times

    download.register(Event.ERROR, handler)
    return errors


def tree(folder):
    """Return the name and content of each file in a folder."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


# One run that succeeds


@pytest.mark.parametrize(
    ("script", "fetched"), [([b"abc", b"def"], 2), ([], 0), ([b""], 0), ([b"a", b"", b"b"], 2)]
)
def test_order(script, fetched):
    """A successful run publishes its events in the documented order, also without content."""
    download = Fake(script)
    events = listen(download)
    assert download() is None
    assert names(events) == [
        *("PREPARED", "SENT", "REPLIED"),
        *("FETCHED",) * fetched,
        "SUCCEEDED",
    ]
    assert all(event.download is download for event in events)
    assert download.writer.getvalue() == b"".join(script)
    assert download.position == len(b"".join(script))


def test_what_is_there_at_each_event(tmp_path):
    """The content is at the target path at Succeeded and not before."""
    target = tmp_path / "a"
    download = Fake(writer=FileWriter(target))
    download.validations.append(Keep())
    seen = {}

    def look(event):
        seen[event.name] = (
            target.exists(),
            download.writer.is_open,
            download.validations[0].applied,
        )

    for name in NAMES:
        download.register(name, look)
    download()
    assert seen == {
        "PREPARED": (False, False, 0),
        "SENT": (False, True, 0),
        "REPLIED": (False, True, 0),
        "FETCHED": (False, True, 0),
        "SUCCEEDED": (True, False, 1),
    }
    assert target.read_bytes() == NEW


def test_fetched():
    """Fetched has each buffer and its offset, after the writer and validations got it."""
    keep = Keep()
    download = Fake([b"abc", b"def"])
    download.validations.append(keep)
    seen = []
    download.register(
        Event.FETCHED,
        lambda event: seen.append(
            (event.buffer, event.offset, keep.seen, download.writer.getvalue(), download.position)
        ),
    )
    download()
    assert seen == [(b"abc", 0, b"abc", b"abc", 3), (b"def", 3, NEW, NEW, 6)]


def test_nobody_listens():
    """A download without handlers, writer and validations works."""
    download = Fake()
    download.writer = None
    download()
    assert download.position == 6


@pytest.mark.parametrize("call", [lambda nop: nop(), Download.__call__])
def test_a_download_that_does_nothing(call):
    """Empty downloads of 2017, without URL and writer, work with and without own __call__."""

    class Nop(Download):
        def __init__(self, thing):
            super().__init__("", None)
            self.attachment = thing

        def _send(self):
            pass

        def __call__(self):
            pass

    nop = Nop("x")
    assert call(nop) is None
    assert (nop.url, nop.writer, nop.attachment, str(nop)) == ("", None, "x", "")


def test_prepared_may_change_everything():
    """A handler of Prepared may change URL, writer, validations and settings."""
    download = Fake()
    keep = Keep()

    def prepare(event):
        event.download.url = "fake://other/"
        event.download.writer = BufferWriter()
        event.download.validations.append(keep)
        event.download.scripts = [[b"other"]]

    first = download.writer
    download.register(Event.PREPARED, prepare)
    download()
    assert (str(download), download.writer.content()) == ("fake://other/", "other")
    assert (first.content(), keep.seen) == ("", b"other")


def test_reply():
    """The response that a protocol announces is there at Replied, which is published once."""
    download = Fake()
    replies = iter(["first", "second"])
    download.scripts = [[lambda: Attempt.of(download).announce(next(replies))] * 2 + [b"abc"]]
    events = listen(download)
    download.register(Event.REPLIED, lambda event: seen.append(download.reply))
    seen = []
    download()
    assert names(events).count("REPLIED") == names(events).count("SENT") == 1
    assert seen == ["first"]
    assert download.reply == "first"


def test_no_content(tmp_path):
    """Without content the target isn't touched and no validation is applied."""
    (tmp_path / "a").write_bytes(OLD)
    download = Fake([], writer=FileWriter(tmp_path / "a"))
    download.brings = False
    download.validations.append(SizeValidation(7))
    events = listen(download)
    download()
    download.writer = None
    download()
    assert names(events) == ["PREPARED", "SENT", "REPLIED", "SUCCEEDED"] * 2
    assert tree(tmp_path) == {"a": OLD}


def test_validations_are_applied_in_order():
    """Validations are applied once, in order, after all bytes, until one fails."""
    applied = []

    class Named(Validation):
        def __init__(self, name, error=None):
            super().__init__()
            self.name, self.error = name, error

        def apply(self):
            applied.append(self.name)
            if self.error:
                raise self.error

    download = Fake()
    wrong = ValidationError(reason="wrong")
    download.validations += [Named("one"), Named("two", wrong), Named("three")]
    with pytest.raises(ValidationError) as caught:
        download()
    assert caught.value is wrong
    assert applied == ["one", "two"]


def test_expected_size():
    """The expected size is the server's, else that of a validation, else unknown."""
    download = Fake()
    assert download.expected_size is None
    download.validations += [Validation(), SizeValidation(7)]
    assert download.expected_size == 7
    download.scripts = [[lambda: Attempt.of(download).expect(8), b"abc"]]
    download.register(Event.FETCHED, lambda event: seen.append(download.expected_size))
    seen = []
    with pytest.raises(ValidationError):
        download()
    assert seen == [8]


# One run that fails


@pytest.mark.parametrize(
    ("script", "events"),
    [
        ([NotFound("why")], ["PREPARED"]),
        ([b"abc", NotFound("why")], ["PREPARED", "SENT", "REPLIED", "FETCHED"]),
    ],
)
def test_failed(script, events, tmp_path):
    """A failed run raises an error with facts, and publishes Error and Failed once, at the end."""
    (tmp_path / "a").write_bytes(OLD)
    download = Fake(script, writer=FileWriter(tmp_path / "a"))
    download.validations.append(SizeValidation(6))
    seen = listen(download)
    with pytest.raises(NotFound) as caught:
        download()
    error = caught.value
    assert names(seen) == [*events, "ERROR", "FAILED"]
    assert seen[-2].error is seen[-1].error is error
    assert (seen[-2].retrying, error.download) == (False, download)
    facts = error.facts
    received = len(b"".join(step for step in script if isinstance(step, bytes)))
    assert (facts.url, facts.received, facts.expected) == (SHOWN, received, 6)
    assert (facts.status, facts.attempt) == (0, 1)
    assert tree(tmp_path) == {"a": OLD}
    assert not download.writer.is_open


BUGS = [ZeroDivisionError("bug"), KeyboardInterrupt(), SystemExit(1)]


@pytest.mark.parametrize(
    ("where", "bug"),
    [
        *((where, bug) for where in ("send", "update", "apply") for bug in (*BUGS, FULL)),
        *((where, bug) for where in ("open", "append", "close") for bug in BUGS),
    ],
    ids=str,
)
def test_bugs(where, bug):
    """An exception that isn't a DownloadError is raised unchanged.

    Failed is published, not Error.
    """
    download = Fake([b"abc", bug] if where == "send" else [b"abc"])
    download.retry = NOW
    if where in ("update", "apply"):
        keep = Keep([1] if where == "update" else (), bug)
        if where == "apply":
            keep.apply = lambda: keep.update(b"")
            keep.fail = [2]
        download.validations.append(keep)
    elif where != "send":
        download.writer = Flaky({where: 1}, bug)
    errors = repair(download)
    events = listen(download)
    with pytest.raises(type(bug)) as caught:
        download()
    assert caught.value is bug
    assert errors == []
    assert names(events).count("FAILED") == 1
    assert names(events)[-1] == "FAILED"
    assert events[-1].error is bug
    assert not {"ERROR", "SUCCEEDED"} & set(names(events))
    assert download.writer.getvalue() == b""
    assert not download.writer.is_open


@pytest.mark.parametrize("name", ["open", "append", "close"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FULL, "No space left on device"),
        (OSError("no number"), "no number"),
        (OSError(), "OSError"),
    ],
)
def test_writer_fails(name, error, reason):
    """An OSError of the writer is a DownloadFailed that says so and isn't retried."""
    download = Fake(writer=Flaky({name: 1}, error))
    download.retry = NOW
    events = listen(download)
    with pytest.raises(DownloadFailed, match=f"can't write to Flaky: {reason}") as caught:
        download()
    assert caught.value.__cause__ is error
    assert names(events)[-2:] == ["ERROR", "FAILED"]
    assert download.sent == (name != "open")
    assert download.writer.getvalue() == b""


def test_writer_cannot_be_discarded(caplog):
    """If discard() fails after an error, the original error is raised and the other is logged."""
    download = Fake([b"abc", NotFound("why")], writer=Flaky({"discard": 1}, LookupError("bug")))
    events = listen(download)
    with caplog.at_level(logging.ERROR), pytest.raises(NotFound):
        download()
    assert names(events)[-1] == "FAILED"
    (record,) = caplog.records
    assert record.exc_info[0] is LookupError


def test_interrupt_while_discarding():
    """Failed is published even if discard() is interrupted."""
    download = Fake([NotFound("why")], writer=Flaky({"discard": 1}, KeyboardInterrupt()))
    events = listen(download)
    with pytest.raises(KeyboardInterrupt):
        download()
    assert names(events)[-1] == "FAILED"


def test_settings_are_validated():
    """An invalid setting fails the run before anything is sent, and the error names it."""
    download = Fake()
    download.settings = {"timeout": Settings(), "ssl": Broken()}
    events = listen(download)
    with pytest.raises(DownloadFailed, match=r"a setting is wrong: ssl\.name: why"):
        download()
    assert (download.sent, names(events)[0], names(events)[-1]) == (0, "PREPARED", "FAILED")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retry", 3),
        ("retry_after_max", "1"),
        ("retry_after_max", -1),
        ("retry_after_max", True),
        ("retry_after_max", None),
        ("retry_after_max", Decimal(Download.retry_after_max)),
    ],
)
def test_policy_is_validated(name, value):
    """A retry policy of a wrong type fails the run before anything is sent."""
    download = Fake()
    download.retry = backoff.DEFAULT
    setattr(download, name, value)
    shown = re.escape(repr(value))
    with pytest.raises(DownloadFailed, match=rf"a setting is wrong: {name}: must be .*: {shown}"):
        download()
    assert download.sent == 0


def test_no_wait_is_heard_of():
    """retry_after_max may be 0, so that no server can ask for a wait."""
    download = Fake()
    download.retry_after_max = 0
    download()
    assert download.sent == 1


def test_protocol_validates():
    """A check of the protocol fails the run, unless a handler of Prepared repairs the setting."""
    download = Fake()
    download.problem = "method: must be GET"
    with pytest.raises(DownloadFailed, match="method: must be GET"):
        download()
    download.register(Event.PREPARED, lambda event: setattr(download, "problem", None))
    download()


def test_protocol_validates_again():
    """An invalid setting made by a handler of Error fails the next attempt before sending."""
    download = Fake([transient()])
    download.retry = NOW
    download.register(Event.ERROR, lambda event: setattr(download, "problem", "url: no"))
    with pytest.raises(DownloadFailed, match="a setting is wrong: url: no"):
        download()
    assert download.sent == 1


@pytest.mark.parametrize("name", NAMES)
def test_handler_that_raises(name, caplog):
    """An exception of a handler is logged without secrets, and the download goes on."""

    def broken(event):
        raise LookupError("broken handler")

    def run(handler):
        download = Fake([b"abc", transient()], [b"abc", b"def"], [NotFound("why")])
        if handler:
            download.register(name, handler)
        download.retry = NOW
        events = listen(download)
        download()
        with pytest.raises(NotFound):
            download()
        return names(events), download.sent

    with caplog.at_level(logging.ERROR):
        assert run(broken) == run(None)
    assert caplog.records
    for record in caplog.records:
        assert record.exc_info[0] is LookupError
        assert (name in record.getMessage(), "hunter2" in record.getMessage()) == (True, False)


# Repairs


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_repair(retries):
    """A handler that repairs gets another attempt at once, up to `retries` times."""
    download = Fake(*[[NotFound(str(number))] for number in range(retries)], [b"abc"])
    download.retries = retries
    errors = repair(download)
    events = listen(download)
    download()
    assert len(errors) == retries
    assert download.sent == retries + 1
    assert names(events).count("PREPARED") == names(events).count("SUCCEEDED") == 1
    assert "FAILED" not in names(events)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_repair_too_often(retries):
    """When a handler has used up `retries`, the error is raised instead of a false success."""
    download = Fake([NotFound("why")])
    download.retries = retries
    errors = repair(download)
    events = listen(download)
    with pytest.raises(NotFound):
        download()
    assert len(errors) == download.sent == retries + 1
    assert names(events).count("FAILED") == 1


def test_repairs_by_default():
    """By default a handler may repair once in each run."""
    assert Download.RETRIES == Fake().retries == 1
    download = Fake([NotFound("why")], [b"abc"], [NotFound("why")], [b"abc"])
    repair(download)
    download()
    download()


def test_repaired_handlers_after_it():
    """All handlers of Error are called after a repair, and a later one may revoke it."""
    download = Fake([NotFound("why")], [b"abc"])
    errors = repair(download)
    download.register(Event.ERROR, lambda event: setattr(event, "repaired", False))
    with pytest.raises(NotFound):
        download()
    assert len(errors) == 1


@pytest.mark.parametrize("first", [b"", b"a", b"abc"])
@pytest.mark.parametrize(
    "make", [BufferWriter, lambda: Writer(io.BytesIO()), Flaky], ids=["buffer", "given", "flaky"]
)
def test_repair_starts_clean(first, make):
    """The attempt after a repair starts without the content fetched before."""
    download = Fake([first, NotFound("why")], [b"def"], writer=make())
    fp = download.writer.fp
    keep = Keep()
    download.validations += [keep, SizeValidation(3)]
    repair(download)
    events = listen(download)
    download()
    content = download.writer.getvalue() if fp is None else fp.getvalue()
    assert content == keep.seen == b"def"
    assert names(events).count("RESTARTED") == bool(first)
    fetched = [event for event in events if event.name == "FETCHED"]
    assert (fetched[-1].buffer, fetched[-1].offset) == (b"def", 0)


@pytest.mark.parametrize("calls", [1, 2])
def test_repair_after_half_a_write(calls):
    """After a repair of a full disk, the half-written buffer isn't kept, not even the first."""
    download = Fake([b"abc", b"def"], writer=Flaky({"append": calls}))
    keep = Keep()
    download.validations += [keep]
    repair(download)
    download()
    assert download.writer.getvalue() == keep.seen == NEW


@pytest.mark.parametrize("updates", [1, 2])
def test_repair_after_a_validation_saw_more(updates):
    """After a repair, a buffer that only some validations saw isn't kept."""
    download = Fake([b"abc", b"def"])
    before, after = Keep(), Keep()
    download.validations += [before, Keep([updates]), after]
    repair(download)
    download()
    assert download.writer.getvalue() == before.seen == after.seen == NEW


def test_repair_of_a_mismatch():
    """A mismatch may be repaired by a handler, and the next attempt starts clean."""
    digest = hashlib.sha256(NEW).hexdigest()
    download = Fake([b"abc"], [b"far too much of it"], [NEW], resumes=True)
    download.retries = 2
    download.validations += [SizeValidation(6), DigestValidation("sha256", digest)]
    errors = repair(download)
    download()
    assert [error.actual for error in errors] == [3, 18]
    assert download.writer.getvalue() == NEW


def test_mismatch_is_not_retried():
    """A mismatch isn't retried by itself."""
    download = Fake()
    download.retry = NOW
    download.validations.append(SizeValidation(7))
    events = listen(download)
    with pytest.raises(ValidationError):
        download()
    assert download.sent == 1
    assert [event.retrying for event in events if event.name == "ERROR"] == [False]
    assert download.writer.getvalue() == b""


# Retries


def test_retry():
    """A transient error is retried within one budget."""
    download = Fake([transient("1")], [b"abc", transient("2")], [b"abc", transient("3")], [NEW])
    download.retry = NOW
    events = listen(download)
    download()
    assert names(events) == [
        *("PREPARED", "ERROR"),
        *("SENT", "REPLIED", "FETCHED", "ERROR"),
        *("RESTARTED", "SENT", "REPLIED", "FETCHED", "ERROR"),
        *("RESTARTED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED"),
    ]
    assert [event.retrying for event in events if event.name == "ERROR"] == [True] * 3
    assert download.writer.getvalue() == NEW


def test_retry_until_the_budget_is_spent():
    """When the retry budget is spent, the last error is raised, and its Error event said so."""
    download = Fake(*[[transient(str(number))] for number in range(9)])
    download.retry = NOW
    events = listen(download)
    with pytest.raises(DownloadFailed) as caught:
        download()
    assert (caught.value.reason, caught.value.facts.attempt, download.sent) == ("3", 4, 4)
    retrying = [event.retrying for event in events if event.name == "ERROR"]
    assert retrying == [True, True, True, False]
    assert names(events).count("FAILED") == 1


@pytest.mark.parametrize(
    ("policy", "error"),
    [(None, transient()), (Retry(total=0), transient()), (NOW, DownloadFailed("why"))],
)
def test_no_retry(policy, error):
    """Nothing is retried without a policy or budget, nor if the error isn't transient."""
    download = Fake([error])
    download.retry = policy
    with pytest.raises(DownloadFailed):
        download()
    assert download.sent == 1


def test_no_retry_by_default():
    """A plugin's download has no retry policy unless it sets one."""
    assert Fake().retry is None


def test_each_run_has_a_budget():
    """A second call of a download has the whole retry budget again."""
    scripts = [[transient()], [transient()], [transient()], [NEW]]
    download = Fake(*scripts, *scripts)
    download.retry = NOW
    download()
    download()
    assert download.sent == 8


def test_repair_does_not_spend_the_budget():
    """A repair takes precedence over a retry, without a wait and without using the budget."""
    download = Fake(*[[transient()]] * 4, [NEW])
    download.retry = NOW
    repair(download, times=1)
    download()
    assert download.sent == 5


def test_retry_is_logged(caplog):
    """A retry is logged with its reason and without secrets."""
    download = Fake([transient(f"lost {URL}")], [NEW])
    download.retry = NOW
    with caplog.at_level(logging.INFO, steps.__name__):
        download()
    (record,) = caplog.records
    assert SHOWN in record.getMessage()
    assert "hunter2" not in record.getMessage()
    assert "t0ps3cret" not in record.getMessage()


def test_no_secret():
    """The str and repr of a download show no secret."""
    download = Fake()
    assert (str(download), repr(download)) == (SHOWN, f"<Fake {SHOWN}>")


# Starting again, and resuming


def test_resume():
    """A retry resumes where the attempt stopped if the protocol can, and digests continue."""
    download = Fake([b"abc", transient()], [transient()], [b"def"], resumes=True)
    download.retry = NOW
    download.validations.append(DigestValidation("sha256", hashlib.sha256(NEW).hexdigest()))
    events = listen(download)
    download()
    assert "RESTARTED" not in names(events)
    assert [event.offset for event in events if event.name == "FETCHED"] == [0, 3]
    assert download.writer.getvalue() == NEW


def test_start_again_without_a_writer():
    """A download without a writer restarts like any other."""
    keep = Keep()
    download = Fake([b"abc", NotFound("why")], [NEW])
    download.writer = None
    download.validations.append(keep)
    repair(download)
    download()
    assert keep.seen == NEW


def test_fails_without_a_writer():
    """A download without a writer can fail, with nothing to discard."""
    download = Fake([NotFound("why")])
    download.writer = None
    with pytest.raises(NotFound):
        download()


def test_no_resume_by_default():
    """By default a protocol can't resume, so the next attempt restarts."""

    class Plain(Download):
        sent = 0

        def _send(self):
            self._write(NEW)
            self.sent += 1
            if self.sent == 1:
                raise NotFound("why")

    download = Plain(URL, BufferWriter())
    repair(download)
    download()
    assert download.writer.getvalue() == NEW


def test_resume_by_repair():
    """The attempt after a handler's repair may resume."""
    download = Fake([b"abc", NotFound("why")], [b"def"], resumes=True)
    repair(download)
    download()
    assert download.writer.getvalue() == NEW


def test_resume_where_nothing_can_be_reset():
    """Resuming works with a writer and validations that can't be reset."""
    download = Fake([b"abc", transient()], [b"def"], writer=Writer(Pipe()), resumes=True)
    download.retry = NOW
    download.validations.append(OnlyUpdate())
    download()
    assert download.writer._given.content == NEW


def test_no_resume_of_what_is_torn():
    """If a buffer was written but not validated, the next attempt restarts."""
    download = Fake([b"abc", b"def"], [b"abc", b"def"], writer=Flaky({"append": 2}), resumes=True)
    repair(download)
    events = listen(download)
    download()
    assert "RESTARTED" in names(events)
    assert download.writer.getvalue() == NEW


def test_a_protocol_may_start_again():
    """If a response can't continue the content, writer and validations restart once."""
    download = Fake(resumes=True)
    keep = Keep()
    download.validations.append(keep)
    download.scripts = [
        [b"abc", transient()],
        [lambda: Attempt.of(download).start_over(), NEW],
    ]
    download.retry = NOW
    events = listen(download)
    download()
    assert names(events).count("RESTARTED") == 1
    assert download.writer.getvalue() == keep.seen == NEW


@pytest.mark.parametrize(
    ("make", "validations"),
    [(lambda: Writer(Pipe()), []), (BufferWriter, [OnlyUpdate])],
    ids=["pipe", "validation"],
)
@pytest.mark.parametrize("way", ["repair", "retry"])
def test_what_cannot_start_again_does_not(make, validations, way):
    """A download that can't restart fails with its original error and refuses a second call."""
    error = transient()
    download = Fake([b"abc", error], [NEW], writer=make())
    download.validations += [cls() for cls in validations]
    if way == "retry":
        download.retry = NOW
    else:
        repair(download)
    events = listen(download)
    with pytest.raises(DownloadFailed) as caught:
        download()
    assert caught.value is error
    assert download.sent == 1
    assert [event.retrying for event in events if event.name == "ERROR"] == [False]
    with pytest.raises(DownloadFailed, match="can't be started again"):
        download()
    assert download.sent == 1


def test_what_cannot_start_again_may_before_it_began():
    """Before the first byte a retry works even with a writer that can't be reset."""
    download = Fake([transient()], [NEW], writer=Writer(Pipe()))
    download.validations.append(OnlyUpdate())
    download.retry = NOW
    download()
    assert download.writer._given.content == NEW


@pytest.mark.parametrize(
    ("fail", "validations"),
    [({"append": 1}, [OnlyUpdate]), ({}, [OnlyUpdate, lambda: Keep([1])])],
    ids=["writer", "validation"],
)
def test_torn_at_the_first_buffer(fail, validations):
    """A writer that can't be reset isn't restarted if the first buffer was only partly handled."""

    class Grows(Flaky):
        def can_restart(self):
            return False

    download = Fake([NEW], writer=Grows(fail))
    download.validations += [make() for make in validations]
    repair(download)
    for _ in range(2):
        with pytest.raises(DownloadError):
            download()
    assert download.sent == 1


def test_a_refused_start_is_no_resume():
    """After a run that was refused at its start, the next one doesn't resume an earlier run."""
    download = Fake([b"abc"], [b""], resumes=True)
    download.validations.append(OnlyUpdate())
    download()
    repair(download)
    with pytest.raises(DownloadFailed, match="can't be started again"):
        download()
    assert download.sent == 1


def test_a_failed_restart_is_no_resume():
    """If the writer's restart failed, its content isn't resumed."""

    class Stuck(BufferWriter):
        stuck = 1

        def restart(self):
            super().restart()
            self.stuck -= 1
            if self.stuck == 0:
                raise FULL

    download = Fake(writer=Stuck(), resumes=True)
    download.scripts = [
        [b"abc", lambda: Attempt.of(download).start_over()],
        [lambda: download._write(NEW[download.position :])],
    ]
    repair(download)
    download()
    assert download.writer.getvalue() == NEW


def test_writer_cannot_start_again_after_all():
    """If the writer's restart fails, so does the download, without a Restarted event."""

    class Stuck(BufferWriter):
        def restart(self):
            raise FULL

    download = Fake([b"abc", NotFound("why")], [NEW], writer=Stuck())
    repair(download)
    events = listen(download)
    with pytest.raises(DownloadFailed, match="No space"):
        download()
    assert "RESTARTED" not in names(events)


# Called again


@pytest.mark.parametrize(
    "make", [BufferWriter, lambda: Writer(io.BytesIO())], ids=["buffer", "given"]
)
def test_second_call(make):
    """A second call starts from 0 with one Restarted event and succeeds like the first."""
    download = Fake([b"abc", b"def"], [b"xy"], [NotFound("why")], [b"z"], writer=make())
    fp = download.writer.fp
    keep = Keep()
    download.validations.append(keep)

    def content():
        return download.writer.getvalue() if fp is None else fp.getvalue()

    events = listen(download)
    download()
    assert content() == NEW
    events.clear()
    download()
    assert content() == keep.seen == b"xy"
    assert names(events) == [*("PREPARED", "RESTARTED", "SENT", "REPLIED", "FETCHED", "SUCCEEDED")]
    with pytest.raises(NotFound):
        download()
    assert content() == b""
    download()
    assert content() == keep.seen == b"z"


def test_second_call_of_a_file(tmp_path):
    """The file of the first run stays until the second run has succeeded."""
    target = tmp_path / "a"
    download = Fake([b"abc"], [b"x", NotFound("why")], [b"def"], writer=FileWriter(target))
    download()
    with pytest.raises(NotFound):
        download()
    assert tree(tmp_path) == {"a": b"abc"}
    download()
    assert tree(tmp_path) == {"a": b"def"}


def test_second_call_with_a_used_validation():
    """A validation that was used before the run is reset."""
    download = Fake()
    size = SizeValidation(6)
    size.update(b"used")
    download.validations.append(size)
    download()


def test_reply_of_the_run_before():
    """The response of an earlier run isn't taken for that of the current one."""
    download = Fake()
    download.scripts = [[lambda: Attempt.of(download).announce("reply")], [NotFound("why")]]
    download()
    assert download.reply == "reply"
    with pytest.raises(NotFound):
        download()
    assert download.reply is None


def test_called_while_running():
    """Calling a running download raises RuntimeError without secrets and doesn't disturb it."""
    download = Fake()
    caught = []

    def again(event):
        with pytest.raises(RuntimeError, match="running") as info:
            download()
        caught.append(str(info.value))

    for name in ("PREPARED", "FETCHED", "SUCCEEDED"):
        download.register(name, again)
    events = listen(download)
    download()
    assert len(caught) == 4
    assert not [text for text in caught if "hunter2" in text]
    assert names(events).count("PREPARED") == names(events).count("SUCCEEDED") == 1
    assert download.writer.getvalue() == NEW


def test_called_while_running_in_another_thread():
    """Calling a download that runs in another thread raises RuntimeError until it ends."""
    entered, leave = threading.Event(), threading.Event()
    download = Fake([entered.set, lambda: leave.wait(30), NEW])
    thread = threading.Thread(target=download)
    thread.start()
    try:
        assert entered.wait(30)
        with pytest.raises(RuntimeError):
            download()
    finally:
        leave.set()
        thread.join()
    download()
    assert download.sent == 2


@pytest.mark.parametrize("end", [NotFound("why"), ZeroDivisionError(), KeyboardInterrupt()])
def test_called_after_a_failure(end):
    """A download can be called again however its last run ended."""
    download = Fake([b"abc", end], [NEW])
    with pytest.raises(type(end)):
        download()
    download()
    assert download.writer.getvalue() == NEW


# Clones


def test_clone():
    """A clone copies the settings, shares context and attachment, and has no results."""
    download = Fake()
    download.context = Context()
    download.timeout = Timeout(1, 2)
    download.headers = {"A": "b"}
    download.tags = ["a"]
    download.attachment = object()
    download.retries = 7
    download.retry = NOW
    download.validations.append(SizeValidation(7))
    events = listen(download)
    twin = download.clone()
    assert type(twin) is Fake
    assert twin.url == download.url
    assert (twin.retries, twin.retry.total, twin.scripts) == (7, NOW.total, download.scripts)
    for name in ("timeout", "headers", "tags"):
        assert getattr(twin, name) == getattr(download, name)
        assert getattr(twin, name) is not getattr(download, name)
    assert twin.context is download.context
    assert twin.attachment is download.attachment
    assert (twin.validations, twin.reply, twin.position) == ([], None, 0)
    assert twin.writer is not download.writer
    twin()
    assert events == []
    assert (download.sent, download.writer.content(), twin.writer.getvalue()) == (0, "", NEW)
    assert len(download.validations) == 1


@pytest.mark.parametrize("attachment", [{}, [], Settings(), {"a": threading.Lock()}], ids="abcd")
def test_clone_shares_the_attachment(attachment):
    """A clone has the same attachment object, whatever its type."""
    download = Fake()
    download.attachment = attachment
    assert download.clone().attachment is attachment


def test_clone_shares_a_context_that_was_not_set():
    """A download and its clone share one context even if none was set."""
    download = Fake()
    assert download.clone().context is download.context


def test_clone_without_a_writer():
    """The clone of a download without a writer has none either."""
    download = Fake()
    download.writer = None
    twin = download.clone()
    twin()
    assert twin.writer is None


def test_clone_of_a_running_download(tmp_path):
    """A clone can run beside its original, without disturbing its file."""
    download = Fake([b"abc", b"def"], writer=FileWriter(tmp_path / "a"))
    twins = []

    def run_twin(event):
        twin = download.clone()
        twin.scripts = [[b"twin"]]
        assert not twin.writer.is_open
        twin()
        twins.append(((tmp_path / "a").read_bytes(), twin.position))

    download.register(Event.FETCHED, run_twin)
    download()
    assert twins == [(b"twin", 4)] * 2
    assert tree(tmp_path) == {"a": NEW}


def test_clone_after_a_run():
    """A clone of a finished download starts at byte 0, without a Restarted event."""
    download = Fake()
    download()
    twin = download.clone()
    events = listen(twin)
    twin()
    assert "RESTARTED" not in names(events)
    assert twin.writer.getvalue() == NEW


# The context


def test_context_of_its_own():
    """A download without a given context has its own, which each run closes."""
    download, resource = Fake(), Counted()
    assert isinstance(download.context, Context)
    assert download.context is download.context is not Fake().context
    for end in ([NEW], [NotFound("why")]):
        download.scripts = [end]
        download.context.cache.put("a", resource)
        with contextlib.suppress(NotFound):
            download()
    assert resource.closed == 2


def test_context_that_is_given():
    """A run doesn't close a context that was given."""
    download, resource, context = Fake(), Counted(), Context()
    context.cache.put("a", resource)
    download.context = context
    download()
    assert (resource.closed, download.context) == (0, context)


def test_context_that_cannot_be_closed():
    """If closing its context fails, the download isn't left in the running state."""

    class Stuck(Resource):
        def close(self):
            raise OSError("stuck")

    download = Fake()
    download.context.cache.put("a", Stuck())
    with contextlib.suppress(OSError):
        download()
    download()


# Cancellation


def run_cancelled(download, token):
    """Run a download below a cancellation token. Return the error."""
    with scope(token), pytest.raises(DownloadFailed) as caught:
        download()
    return caught.value


def test_cancelled_before():
    """A download whose token was cancelled before sends nothing and fails with the reason."""
    token = Cancellation()
    token.cancel("shut down")
    download = Fake()
    events = listen(download)
    assert run_cancelled(download, token).reason == "shut down"
    assert download.sent == 0
    assert names(events)[-1] == "FAILED"
    assert "SUCCEEDED" not in names(events)


@pytest.mark.parametrize(
    "step",
    [
        None,
        b"more",
        b"",
        transient(),
        NotFound("the socket was shut down"),
        OSError(errno.EBADF, "the socket was shut down"),
        ValueError("I/O operation on closed file"),
    ],
    ids=repr,
)
def test_cancelled_meanwhile(step, tmp_path):
    """A cancelled run fails with the reason whatever it raises, and leaves nothing."""
    (tmp_path / "a").write_bytes(OLD)
    token = Cancellation()
    script = [b"abc", lambda: token.cancel("shut down"), *([] if step is None else [step])]
    download = Fake(script, [NEW], writer=FileWriter(tmp_path / "a"))
    download.retry = NOW
    errors = repair(download)
    events = listen(download)
    error = run_cancelled(download, token)
    assert error.reason == "shut down"
    if isinstance(step, Exception):
        assert error.__cause__ is step
    assert download.sent == 1
    assert len(errors) <= 1
    assert not [event for event in events if event.name == "ERROR" and event.retrying]
    assert names(events)[-1] == "FAILED"
    assert names(events).count("FAILED") == 1
    assert tree(tmp_path) == {"a": OLD}


@pytest.mark.parametrize("name", ["PREPARED", "SENT", "FETCHED", "ERROR"])
def test_cancelled_by_a_handler(name):
    """A handler may cancel the run that calls it."""
    token = Cancellation()
    download = Fake([b"abc", b"def", transient()], [NEW])
    download.retry = NOW
    download.register(name, lambda event: token.cancel("shut down"))
    repair(download)
    error = run_cancelled(download, token)
    assert download.sent <= 1
    assert error.reason == "shut down"
    assert download.writer.getvalue() == b""


def test_cancelled_in_a_wait():
    """A cancellation ends the wait before a retry at once."""
    token = Cancellation()
    error = transient()
    error.retry_after = 100
    download = Fake([error], [NEW])
    download.retry = NOW
    waiting = threading.Event()

    class Watched(logging.Handler):
        def emit(self, record):
            waiting.set()

    handler = Watched(logging.INFO)
    logger = logging.getLogger(steps.__name__)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    cancel = threading.Thread(target=lambda: waiting.wait(30) and token.cancel("shut down"))
    cancel.start()
    try:
        found = run_cancelled(download, token)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        waiting.set()
        cancel.join()
    assert (found.reason, download.sent) == ("shut down", 1)


def test_cancelled_after_the_end():
    """A cancellation after the success changes nothing, but stops downloads of handlers."""
    token = Cancellation()
    download = Fake()
    inner = []

    def nested(event):
        inner.append(current().within(token))
        token.cancel("shut down")
        inner.append(run_cancelled(Fake(), current()).reason)

    download.register(Event.SUCCEEDED, nested)
    with scope(token):
        download()
        assert current() is token
    assert inner == [True, "shut down"]
    assert not token._children


# Limits, and the health of the host


class Limiter:
    """A rate limiter with given waits, which counts its calls."""

    def __init__(self, *delays):
        self.delays = list(delays)

    def delay(self):
        """Return the next wait."""
        return self.delays.pop(0)


def test_rate():
    """Each attempt waits as the rate limiter says, and its first request has no further wait."""
    download = Fake()
    download.scripts = [[lambda: Attempt.of(download).wait_for_turn(), NEW]]
    download()
    download.rate_limiter = limiter = Limiter(0, 0.001)
    for _ in range(2):
        download()
    assert limiter.delays == []


def test_rate_within_an_attempt():
    """Each further request of an attempt asks the rate limiter again."""
    download = Fake()
    download.scripts = [[lambda: Attempt.of(download).wait_for_turn()] * 3]
    download.rate_limiter = limiter = Limiter(0, 0.001, 0)
    download()
    assert limiter.delays == []


def test_cancelled_while_it_waits_for_its_turn():
    """A run cancelled while it waits for the rate limiter fails without sending anything."""
    token = Cancellation()
    download = Fake()

    class Cancels:
        def delay(self):
            token.cancel("shut down")
            return 3600

    download.rate_limiter = Cancels()
    assert run_cancelled(download, token).reason == "shut down"
    assert download.sent == 0


def test_total():
    """A run that exceeds the total limit is stopped, and its error says so."""
    download = Fake([b"abc", lambda: current().wait(30)])
    download.timeout = Timeout(total=0.01)
    download.retry = NOW
    with pytest.raises(DownloadFailed, match=r"within the total limit of 0\.01 s"):
        download()
    # There is no attempt if the limit is over before anything could be sent.
    assert download.sent <= 1


def test_total_before_the_timer():
    """A socket time-out caused by the total limit is reported as that limit."""
    download = Fake(
        [b"abc", lambda: setattr(record_of(download).run, "deadline", 0.0), transient()], [NEW]
    )
    download.timeout = Timeout(total=3600)
    download.retry = NOW
    events = listen(download)
    with pytest.raises(DownloadFailed, match="within the total limit of 3600 s"):
        download()
    assert download.sent == 1
    assert not [event for event in events if event.name == "ERROR" and event.retrying]


class FakePace:
    """Reports too low a speed as often as told."""

    slow = 0

    def __init__(self, token, least, window, received):
        assert (least, window, received()) == (7, 3, 0)
        self.reason = None

    def __enter__(self):
        if FakePace.slow:
            FakePace.slow -= 1
            self.reason = "too slow"
        return self

    def __exit__(self, *args):
        pass


@pytest.mark.parametrize("step", [b"", OSError("the socket was shut down")], ids=repr)
@pytest.mark.parametrize("slow", [0, 1, 9])
def test_too_slow(step, slow, monkeypatch):
    """An attempt below the least speed fails, whatever it raised, and is retried."""
    monkeypatch.setattr(speed, "Pace", FakePace)
    monkeypatch.setattr(FakePace, "slow", slow)
    download = Fake(*[[step]] * slow, [NEW])
    download.timeout = Timeout(least_speed=7, window=3)
    download.retry = NOW
    if slow > 3:
        with pytest.raises(DownloadFailed, match="too slow"):
            download()
        assert download.sent == 4
    else:
        download()
        assert (download.sent, download.writer.getvalue()) == (slow + 1, NEW)


def test_a_bug_under_a_limit_of_speed():
    """With a least speed, an attempt that fails for another reason raises that error."""
    download = Fake([ZeroDivisionError()])
    download.timeout = Timeout(least_speed=1)
    with pytest.raises(ZeroDivisionError):
        download()


class FakeBreaker:
    """A circuit breaker that records its calls."""

    has_failed = True

    def __init__(self, is_open=False, error=None):
        self.is_open, self.error = is_open, error
        self.calls = []

    def admit(self):
        """Admit the attempt or not."""
        self.calls.append("admit")
        if self.error:
            raise self.error

    def failed(self, began):
        """Record the call."""
        self.calls.append("failed")

    def succeeded(self):
        """Record the call."""
        self.calls.append("succeeded")


def hosted(script, breaker, shared=True):
    """Make a download from a host with a circuit breaker."""
    download = Fake(script)
    download.hosted = "host"
    context = Context() if shared else download.context
    host = Host()
    host.breaker = breaker
    context.cache.put(("host", "host"), host)
    if shared:
        download.context = context
    download.retry = NOW
    return download


def said(error, is_up):
    """Make an error that says whether the host is up."""
    error.is_up = is_up
    return error


@pytest.mark.parametrize(
    ("script", "calls"),
    [
        ([NEW], ["admit", "succeeded"]),
        ([said(NotFound("why"), True)], ["admit", "succeeded"]),
        ([NotFound("why")], ["admit"]),
        ([transient()], ["admit", "failed"] * 4),
        ([said(transient(), True)], ["admit", "succeeded"] * 4),
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_breaker(script, calls, shared):
    """Each attempt reports to the shared circuit breaker whether the host is up."""
    breaker = FakeBreaker()
    with contextlib.suppress(DownloadFailed):
        hosted(script, breaker, shared)()
    assert breaker.calls == (calls if shared else [])


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_what_is_used_up_here_is_no_failure_of_the_host(code):
    """An attempt that lacks a descriptor or memory says so and doesn't count against the host."""
    breaker = FakeBreaker()

    def fail():
        raise transient("the connection failed") from OSError(code, "used up")

    with pytest.raises(DownloadFailed, match=r"no .* left.*: the connection failed"):
        hosted([fail], breaker)()
    assert breaker.calls == ["admit"] * 4


def test_breaker_is_made():
    """The first download with a shared context makes the circuit breaker of a host."""
    download = Fake()
    download.hosted, download.context = "host", Context()
    download()
    assert ("host", "host") in download.context.cache


@pytest.mark.parametrize(("is_open", "error"), [(True, None), (True, DownloadFailed("down"))])
def test_host_that_is_down(is_open, error):
    """If the circuit breaker refuses an attempt, nothing is sent and nothing is retried."""
    download = hosted([transient()], FakeBreaker(is_open, error))
    with pytest.raises(DownloadFailed, match="down" if error else "try again"):
        download()
    assert download.sent == (error is None)


# Partial files of an earlier run


class Left(BufferWriter):
    """A writer with a partial file of an earlier run, until it restarts."""

    def __init__(self, content, note="v1", error=None):
        super().__init__()
        self.left, self.note, self.error = content, note, error
        self.forgotten = False

    def open(self):
        """Open the partial file."""
        super().open()
        self.fp.write(self.left)

    def recall(self):
        """Return the note of the partial file."""
        return self.note if self.left else None

    def remember(self, note):
        """Delete the note."""
        self.left, self.forgotten = b"", note is None

    def replay(self, size):
        """Return the partial content, or fail in the middle if the test says so."""
        yield self.left[:2]
        if self.error:
            error, self.error = self.error, None
            raise error
        yield self.left[2:]

    def truncate(self):
        """Restart."""
        self.remember(None)
        super().truncate()

    def restart(self):
        """Restart."""
        self.remember(None)
        super().restart()


class Resumes(Fake):
    """Recognizes one version and fetches the rest of it."""

    def __init__(self, writer):
        super().__init__(writer=writer, resumes=True)
        self.scripts = [[lambda: self._write(NEW[self.position :])]]
        self.known = "v1"


@pytest.mark.parametrize(
    ("note", "resets", "fetched"),
    [("v1", True, [b"ab", b"cd", b"ef"]), ("v2", True, [NEW]), ("v1", False, [NEW])],
)
def test_recall(note, resets, fetched):
    """A partial file of the same version is resumed and seen by all; any other is deleted."""
    download = Resumes(Left(b"abcd", note))
    keep = Keep()
    download.validations += [keep, *([] if resets else [OnlyUpdate()])]
    events = listen(download)
    download()
    assert [event.buffer for event in events if event.name == "FETCHED"] == fetched
    assert download.writer.getvalue() == keep.seen == NEW
    assert "RESTARTED" not in names(events)


def test_nobody_recognizes_it():
    """A protocol without versions deletes the partial file."""
    download = Fake([NEW], writer=Left(b"abcd"))
    download()
    assert download.writer.getvalue() == NEW


def test_recall_of_what_is_wrong():
    """If a validation refuses the partial file, it is deleted and all is fetched."""
    download = Resumes(Left(b"abcdefg"))
    download.validations.append(SizeValidation(6))
    events = listen(download)
    download()
    assert names(events).count("RESTARTED") == 1
    assert download.writer.getvalue() == NEW


def test_recall_that_fails():
    """A partial file that can't be read to its end isn't resumed in the middle."""
    download = Resumes(Left(b"abcd", error=OSError(errno.EIO, "Input/output error")))
    repair(download)
    download()
    assert download.writer.getvalue() == NEW


@pytest.mark.parametrize(
    ("error", "forgotten"), [(ValidationError(reason="wrong"), True), (NotFound("why"), False)]
)
def test_what_is_kept_for_later(error, forgotten):
    """Content that failed a validation isn't kept for a later run; interrupted content may be."""
    download = Fake([b"abc", error], writer=Left(b""))
    with pytest.raises(type(error)):
        download()
    assert download.writer.forgotten is forgotten


# The invariants


def fault(kind):
    """Make a new exception of a kind."""
    return {
        "transient": transient(),
        "fatal": NotFound("why"),
        "bug": ZeroDivisionError("bug"),
    }[kind]


class Faulty(Download):
    """Fetches a content with faults of some attempts: before which buffer, and of what kind."""

    def __init__(self, writer, buffers, faults, resumes):
        super().__init__(URL, writer)
        self.buffers, self.faults, self.resumes = buffers, iter(faults), resumes
        self.heard = []
        self.register(Event.FETCHED, self._hear)
        self.register(Event.RESTARTED, lambda event: self.heard.clear())

    def _hear(self, event):
        assert event.offset == len(b"".join(self.heard))
        self.heard.append(event.buffer)

    def _send(self):
        number, kind = next(self.faults, None) or (None, None)
        end = 0
        for buffer in self.buffers[:number]:
            end += len(buffer)
            if end > self.position:
                self._write(buffer[self.position - end :])
        if kind is not None:
            raise fault(kind)

    _protocol = type("P", (Protocol,), {"can_resume": lambda _, download: download.resumes})


class FaultyFile(FileWriter):
    """A FileWriter with faults, counted over its lifetime."""

    def __init__(self, path, append, close):
        super().__init__(path)
        self.append_in, self.close_in = append, close

    def append(self, buffer):
        """Fail after half of the buffer when it is due."""
        self.append_in -= 1
        if self.append_in == 0:
            super().append(buffer[: len(buffer) // 2])
            raise FULL
        return super().append(buffer)

    def close(self):
        """Fail before publishing when it is due."""
        self.close_in -= 1
        if self.close_in == 0:
            raise FULL
        super().close()


def check_invariants(download, keep, folder):
    """Run a download and check the four invariants."""
    content = b"".join(download.buffers)
    events = listen(download)
    expected, error = {"a": content}, None
    before = tree(folder)
    try:
        download()
    except (DownloadError, ZeroDivisionError) as caught:
        expected, error = before, caught
    # Exactly one of Succeeded and Failed, as the last event.
    ends = [name for name in names(events) if name in ("SUCCEEDED", "FAILED")]
    assert ends == names(events)[-1:] == ["FAILED" if error else "SUCCEEDED"]
    # The complete old file or the complete new one, nothing else, and never another content.
    assert tree(folder) == expected
    # All see the same bytes, each once since the last Restarted.
    heard = b"".join(download.heard)
    assert content.startswith(keep.seen)
    assert keep.seen.startswith(heard)
    if error is None:
        assert heard == keep.seen == content


@settings(deadline=None, max_examples=100)
@given(
    buffers=st.lists(st.binary(min_size=1, max_size=4), max_size=4),
    faults=st.lists(
        st.one_of(
            st.none(), st.tuples(st.integers(0, 4), st.sampled_from(["transient", "fatal", "bug"]))
        ),
        max_size=4,
    ),
    repairs=st.integers(0, 3),
    retry=st.sampled_from([None, NOW]),
    resumes=st.booleans(),
    writer=st.tuples(st.integers(0, 6), st.integers(0, 2)),
    update=st.integers(0, 6),
    stubborn=st.booleans(),
    broken=st.sampled_from([None, *NAMES]),
    old=st.sampled_from([None, OLD]),
    cancel=st.sampled_from([None, "SENT", "FETCHED", "ERROR", "RESTARTED"]),
)
def test_invariants(
    buffers, faults, repairs, retry, resumes, writer, update, stubborn, broken, old, cancel
):
    """With random faults, a download ends once, with a complete file and correct bytes for all."""
    keep, token = Keep([update]), Cancellation()
    with tempfile.TemporaryDirectory() as folder, scope(token), quiet():
        target = Path(folder, "a")
        if old is not None:
            target.write_bytes(old)
        download = Faulty(FaultyFile(target, *writer), buffers, faults, resumes)
        download.retry, download.retries = retry, repairs
        download.validations += [keep, *[OnlyUpdate()] * stubborn]
        if broken:
            download.register(broken, lambda event: 1 / 0)
        if cancel:
            download.register(cancel, lambda event: token.cancel("shut down"))
        repair(download)
        for _ in range(2):
            check_invariants(download, keep, folder)


@contextlib.contextmanager
def quiet():
    """Turn logging off."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def test_received_too_much():
    """The error of a size mismatch counts all received bytes, including the excess."""
    download = Fake([b"abcdef"])
    download.validations.append(SizeValidation(3))
    with pytest.raises(ValidationError) as caught:
        download()
    assert (caught.value.facts.received, caught.value.facts.expected) == (6, 3)


def test_refused_before_anything_came():
    """The error of a run refused at its start has no facts of the previous run."""
    download = Fake([NEW])
    download()
    download.problem = "bad"
    with pytest.raises(DownloadFailed) as caught:
        download()
    assert caught.value.facts.received == 0
