"""Tests of the engine that sends downloads in chunks to workers, here in threads."""

import pickle
import resource
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from executors import Inline, Odd, Remote
from stubs import Nop, Stub

from pulpcore.plugin.download.futures import (
    Batch,
    BufferWriter,
    DownloadFailed,
    DownloadMonitor,
    Event,
    Limits,
    SizeValidation,
    Validation,
    Writer,
)
from pulpcore.plugin.download.futures.engine.attempt import record_of
from pulpcore.plugin.download.futures.engine.report import Report
from pulpcore.plugin.download.futures.engine.spec import BLOCK, Packer, blocks, unpack
from pulpcore.plugin.download.futures.event import Failed, Fetched
from pulpcore.plugin.download.futures.pool import chunks, executors, pending, portions, worker
from pulpcore.plugin.download.futures.pool.folder import Folder
from pulpcore.plugin.download.futures.pool.threads import Threads
from pulpcore.plugin.download.futures.pool.window import Plan
from pulpcore.plugin.download.futures.progress import ProgressMonitor
from pulpcore.plugin.download.futures.rate import RateLimiter

SECONDS = 20


@pytest.fixture
def inline(tmp_path, monkeypatch):
    """Make an `Inline` executor, and check that no folder of a batch is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = []

    def make(*arguments):
        made.append(Inline(*arguments))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown()
    assert list(tmp_path.glob("pulp-futures-*")) == []


def run(downloads, executor, **options):
    """Run a batch to its end, and return its plans by download."""
    with Batch(downloads, executor=executor, **options) as batch:
        plans = list(batch())
    assert len({plan.download for plan in plans}) == len(plans)
    return {plan.download: plan for plan in plans}


def in_one_chunk(monkeypatch, number):
    """Have the engine wait for so many downloads, and send them in one chunk."""
    monkeypatch.setattr(
        portions.Portions, "next", lambda _, waiting, *others: number if waiting == number else 0
    )


def sizes(executor):
    """Return the number of downloads in each chunk."""
    return [size(chunk) for chunk in executor.calls]


def size(chunk):
    """Return the number of downloads in a chunk."""
    return sum(len(specs) for _, specs in blocks(chunk.specs))


def test_chunks_grow(inline):
    """If downloads are quick, chunks grow, and the backlog grows to two chunks a worker."""
    executor = inline(2)
    batch = Batch((Nop() for _ in range(3000)), executor=executor)
    with batch:
        assert len(list(batch())) == 3000
    assert max(sizes(executor)) > portions.FIRST
    assert batch.backlog > 2 * 2 * portions.FIRST
    assert sum(sizes(executor)) == 3000


def test_backlog(inline):
    """A backlog of the caller's limits the chunks, and stays as it is."""
    executor = inline(2)
    batch = Batch((Nop() for _ in range(300)), concurrent=2, backlog=20, executor=executor)
    with batch:
        assert len(list(batch())) == 300
    assert max(sizes(executor)) <= 5
    assert batch.backlog == 20


def test_a_chunk_fills_while_all_workers_run():
    """A small chunk is sent only if a worker has none. Otherwise it is filled first."""
    policy = portions.Portions(4, None)
    full = portions.FIRST
    # Two workers: one of them has no chunk, and then each has one.
    assert policy.next(4, 0, 1, 2) == 4
    assert policy.next(full - 1, 0, 2, 2) is None
    assert policy.next(full, 0, 2, 2) == policy.next(full + 1, 0, 2, 2) == full
    assert policy.next(3, portions.PREPARE, 2, 2) == 3
    assert policy.next(full, 0, 4, 2) == policy.next(0, 0, 2, 2) == 0


def test_idle_workers_share_what_waits():
    """Workers without a chunk get equal parts of the downloads that wait, rounded up."""
    policy = portions.Portions(1, None)
    assert [policy.next(9, 0, sent, 4) for sent in range(4)] == [3, 3, 5, 9]


def test_chunks_of_a_long_batch_are_larger():
    """The last chunks of a short batch keep no worker busy for long while others are idle."""
    policy = portions.Portions(4, None)
    sizes = []
    for done in (300, 600, 4000, 6000, 10**6):
        policy.done = done
        policy.learn(1e9, 2)
        sizes.append(policy.next(10**6, 0, 2, 2))
    assert sizes == [portions.FEW, portions.FEW, portions.FEW, 6000 // 16, portions.MOST]


def test_the_thread_is_woken_once(inline, monkeypatch):
    """The engine's thread isn't called for each download, but again after an interrupt."""
    calls, faults = [], [KeyboardInterrupt]

    def run(pool, function):
        calls.append(function)
        if faults:
            raise faults.pop()

    monkeypatch.setattr(chunks.Workers, "run", run)
    engine = Batch([], executor=inline())._engine
    start = partial(engine.start, complete=Mock())
    plans = [Plan(Nop()) for _ in range(4)]
    with pytest.raises(KeyboardInterrupt):
        start(plans[0])
    for plan in plans[:3]:
        start(plan)
    assert len(calls) == 2
    # It has begun, so it may miss the next one.
    monkeypatch.setattr(engine, "_send", Mock())
    calls[-1]()
    start(plans[3])
    assert len(calls) == 3


def test_no_plan_waits_for_a_chunk_to_fill(inline):
    """A finished plan is returned even if the iterable waits for that."""
    returned = threading.Event()

    def one_by_one():
        yield Nop(1)
        assert returned.wait(SECONDS)
        yield Nop(2)

    with Batch(one_by_one(), executor=inline()) as batch:
        plans = batch()
        # The source is slow now, so it isn't asked again before this plan is returned.
        threading.Timer(0.2, returned.set).start()
        assert next(plans).download.attachment == 1
        assert [plan.download.attachment for plan in plans] == [2]


def test_one_host_in_a_chunk():
    """A chunk prefers downloads of one host, but leaves no host out."""
    waiting = pending.Pending()
    waiting.add((Mock(download=Remote(f"test://{host}/x", None)), None) for host in "aabacab")
    hosts = [
        [item[0].download.url[7] for item in waiting.take(3)] for _ in range(3) if waiting.count
    ]
    assert hosts[0] == ["a", "a", "a"]
    assert sorted(host for found in hosts for host in found) == list("aaaabbc")
    assert waiting.take(5) == []


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Stub(lambda _: None), "test://stub can't be sent to another process"),
        (lambda: Remote("test://a/bytes/1", BufferWriter()), "BufferWriter can't be filled"),
        (lambda: Remote("test://a/bytes/1", Writer(sys.stdout.buffer)), "file object"),
        (lambda: handled(Event.FETCHED), "the handler handled.<locals>.handler of FETCHED"),
        (lambda: handled(Event.ERROR), "of ERROR can't run in another process"),
        (lambda: handled(Event.PREPARED), "of PREPARED can't run in another process"),
    ],
)
def test_refused(inline, make, text):
    """A download that can't be pickled fails with a ValueError. Others aren't affected."""
    bad, good = make(), [Remote("test://a/bytes/1", None) for _ in range(5)]
    plans = run([*good[:2], bad, *good[2:]], inline())
    assert isinstance(plans[bad].error, ValueError)
    assert not plans[bad].executed
    assert text in str(plans[bad].error)
    assert [plans[download].error for download in good] == [None] * 5


def handled(name):
    """Make a download with a handler."""

    def handler(event):
        pass

    download = Remote("test://a/bytes/1", None)
    download.register(name, handler)
    return download


def test_a_refusal_shows_no_secret(inline):
    """The error about a download that can't be pickled doesn't show the URL's password."""
    bad = Stub(lambda _: None, url="test://ann:s3cret@host/x?token=t0ken")
    error = run([bad], inline())[bad].error
    assert "s3cret" not in str(error)
    assert "t0ken" not in str(error)
    assert error.__context__ is None


class Grumpy(Remote):
    """A download that can't be restored."""

    def __setstate__(self, state):
        """Fail."""
        raise RuntimeError("grumpy")


def test_not_restored(inline):
    """A download that can't be unpickled in the worker fails alone, with a ValueError."""
    bad, good = Grumpy("test://a/bytes/1", None), [Remote("test://a/bytes/1", None) for _ in "abc"]
    plans = run([*good, bad], inline())
    assert "can't be run by another process: RuntimeError: grumpy" in str(plans[bad].error)
    assert isinstance(plans[bad].error, ValueError)
    assert [plans[download].error for download in good] == [None] * 3


def test_not_restored_after_others_have_run(inline, monkeypatch):
    """A worker unpickles a chunk step by step. After an error, only the rest is sent again."""
    in_one_chunk(monkeypatch, 2 * BLOCK)
    bad = Grumpy("test://a/bytes/1", None)
    some = [Remote("test://a/bytes/1", None) for _ in range(2 * BLOCK - 1)]
    executor = inline(1)
    plans = run([*some, bad], executor, concurrent=2)
    assert "RuntimeError: grumpy" in str(plans[bad].error)
    assert [plans[download].error for download in some] == [None] * len(some)
    assert len(executor.calls) == 1 + BLOCK


def test_a_bug_in_a_worker(inline, monkeypatch):
    """A bug fails the download with its text. The worker doesn't reuse the threads."""
    monkeypatch.setattr(worker._Run, "_collect", Mock(side_effect=KeyError("bug")))
    download = Nop()
    plan = run([download], inline(1))[download]
    assert "KeyError: 'bug'" in str(plan.error)
    assert [list(session.engines) for session in worker._sessions.values()] == [[]]


def test_threads_of_a_worker_stay(inline):
    """A worker runs the chunks of a batch with the same threads, until it closes its session."""
    executor = inline(1)
    engines = []
    executor.hook = lambda number: engines.append(
        [list(session.engines) for session in worker._sessions.values()]
    )
    run([Nop() for _ in range(3 * portions.FIRST)], executor, concurrent=2)
    executor.shutdown()
    before, *after = engines
    assert before == []
    assert len(after) >= 2
    assert len({id(engine) for ((engine,),) in after}) == 1
    assert after[0][0][0].cancellation.is_cancelled()


class Second(Nop):
    """A download that ends when the worker sleeps."""

    slept = threading.Event()

    def __call__(self):
        """Wait for that."""
        assert self.slept.wait(SECONDS)


@pytest.mark.parametrize("is_single", [True, False])
def test_reports_of_quick_downloads(inline, monkeypatch, is_single):
    """A worker in which one thread runs all downloads collects several reports at a time."""
    monkeypatch.setattr(Threads, "is_single", is_single)
    monkeypatch.setattr(Second, "slept", threading.Event())
    monkeypatch.setattr(worker, "time", Mock(monotonic=time.monotonic, sleep=Mock()))
    worker.time.sleep.side_effect = lambda _: Second.slept.set()
    if not is_single:
        Second.slept.set()
    number = 2 * worker._PLENTY
    monkeypatch.setattr(worker, "_AHEAD", number)
    in_one_chunk(monkeypatch, number)
    downloads = [Nop(), Second(), *(Nop() for _ in range(number - 2))]
    plans = run(downloads, inline(1), concurrent=1, backlog=number)
    assert all(plan.executed and plan.error is None for plan in plans.values())
    assert worker.time.sleep.called is is_single


def test_errors(inline):
    """A worker's error returns unchanged, or as DownloadFailed if it can't be unpickled."""
    odd, plain = Remote("test://a/raise/odd", None), Remote("test://a/raise/plain", None)
    told = []
    plain.register(Event.FAILED, told.append)
    plans = run([odd, plain], inline())
    assert isinstance(plans[odd].error, DownloadFailed)
    assert plans[odd].error.download is odd
    assert "Odd: odd one 1" in plans[odd].error.reason
    assert isinstance(plans[plain].error, KeyError)
    assert [(type(event), event.error) for event in told] == [(Failed, plans[plain].error)]


class Sum(Validation):
    """A validation with an `actual` of its own."""

    def __init__(self):
        super().__init__()
        self.actual = 0

    def update(self, buffer):
        """Count."""
        self.actual += len(buffer)

    def reset(self):
        """Start again."""
        self.actual = 0


class Hoarder(Sum):
    """A validation whose result doesn't pickle."""

    def apply(self):
        """Keep something that doesn't pickle."""
        self.actual = threading.Lock()


class Late(Sum):
    """A validation whose result can't even be read."""

    broken = False

    def apply(self):
        """Break."""
        type(self).broken = True

    @property
    def actual(self):
        """Raise once it was applied."""
        if self.broken:
            raise ValueError("late")
        return 0

    @actual.setter
    def actual(self, value):
        pass


def test_validations(inline):
    """`actual` of each validation returns from the worker, and is reset by the next run."""
    download = Remote("test://a/bytes/7", None)
    download.validations = [SizeValidation(7), Sum(), Validation()]
    run([download], inline())
    assert [validation.actual for validation in download.validations[:2]] == [7, 7]
    download()
    assert [validation.actual for validation in download.validations[:2]] == [7, 7]


class Unreadable(Validation):
    """Has an `actual` that pickles, and can't be unpickled."""

    broken = False
    actual = None

    def apply(self):
        """Exchange `actual`."""
        self.actual = Odd(1, 2)


@pytest.mark.parametrize("kind", [Hoarder, Late, Unreadable])
def test_no_report(inline, kind):
    """If a download's state can't be sent back, it fails with that reason. Others don't."""
    bad, good = Remote("test://a/bytes/7", None), Remote("test://a/bytes/7", None)
    bad.validations = [kind()]
    plans = run([good, bad], inline(1))
    kind.broken = False
    assert "can't report what came of it" in plans[bad].error.reason
    assert plans[good].error is None


def test_monitor(inline):
    """A monitor gets the facts from the worker, and counts itself when the download runs here."""
    download = Remote("test://a/bytes/7", None)
    monitor = DownloadMonitor(download)
    run([download], inline())
    facts = monitor.facts()
    assert facts["size"] == monitor.size == 7
    monitor.update(b"more")
    assert monitor.size == 4
    download()
    assert monitor.facts() == facts


@pytest.mark.parametrize(("url", "restarts"), [("test://a/bytes/7", 1), ("test://a/raise/odd", 0)])
def test_run_at_home_afterwards(inline, url, restarts):
    """When a download runs here after it ran in a worker, it restarts if bytes came there."""
    download = Remote(url, None)
    run([download], inline())
    told = []
    download.register(Event.RESTARTED, told.append)
    download.url = "test://a/bytes/7"
    download()
    assert len(told) == restarts


def test_a_monitor_that_fails(inline, caplog, monkeypatch):
    """If a monitor can't take a worker's report, that is logged, and the download succeeds."""
    download = Remote("test://a/bytes/7", None)
    monitor = DownloadMonitor(download)
    monkeypatch.setattr(DownloadMonitor, "returned", Mock(side_effect=KeyError("x")))
    assert run([download], inline())[download].error is None
    assert monitor.size == 0
    assert "A monitor could not take a report" in caplog.text


def test_lost_twice(inline, monkeypatch):
    """Downloads of a lost chunk are tried once more, one by one. The second loss is a failure."""
    in_one_chunk(monkeypatch, 4)
    executor = inline(1)
    some = [Remote(f"test://a/bytes/{number}", None) for number in range(4)]
    executor.faults = {0: OSError("worker gone"), 2: OSError("worker gone")}
    told = []
    for download in some:
        download.register(Event.FAILED, told.append)
    plans = run(some, executor)
    failed = [plan for plan in plans.values() if plan.error is not None]
    assert sizes(executor) == [4, 1, 1, 1, 1]
    assert len(failed) == len(told) == 1
    assert "two workers failed at it: OSError: worker gone" in failed[0].error.reason
    assert failed[0].executed


def test_a_second_try_is_alone(inline):
    """While a lost chunk's downloads are tried again, no other worker runs anything."""
    executor = inline(2)
    executor.faults = {0: OSError("worker gone")}
    some = [Remote(f"test://{host}/bytes/1", None) for host in "ab" for _ in range(200)]
    batch = Batch(some, executor=executor)
    send, retried, beside = batch._engine._send_chunk, [], []

    def watched(items, is_retry=False):
        retried.extend(items * is_retry)
        sent = batch._engine._sent.values()
        beside.extend(each for each in sent if is_retry or each.is_retry)
        send(items, is_retry)

    batch._engine._send_chunk = watched
    with batch:
        assert [plan.error for plan in batch()] == [None] * 400
    assert len(retried) == sizes(executor)[0]
    assert beside == []


def test_blocks(inline, monkeypatch):
    """Reports travel in blocks. A report that can't be sent doesn't affect the others."""
    executor = inline(1)
    in_one_chunk(monkeypatch, 2 * BLOCK + 1)
    downloads = [Remote(f"test://a/bytes/{number}", None) for number in range(2 * BLOCK + 1)]
    downloads[-1].validations.append(Hoarder())
    plans = run(downloads, executor)
    assert [type(plan.error) for plan in plans.values()].count(DownloadFailed) == 1
    assert sizes(executor) == [2 * BLOCK + 1]
    for number, download in enumerate(downloads[:-1]):
        assert download.position == number


def test_a_reply_that_only_the_worker_can_read(inline, monkeypatch):
    """If a reply can't be unpickled, its downloads fail with the reason, and none is lost."""
    executor = inline(1)
    refuse = Mock(side_effect=ImportError("no module named plugin"))
    monkeypatch.setattr(chunks, "blocks", refuse)
    some = [Remote(f"test://a/bytes/{number}", None) for number in range(3)]
    plans = run(some, executor)
    assert {plan.error.reason for plan in plans.values()} == {
        "two workers failed at it: ImportError: no module named plugin"
    }


def test_an_early_report_that_can_t_be_read(inline, monkeypatch):
    """An early report that can't be unpickled is skipped. The final one has the same."""
    monkeypatch.setattr(worker, "PATIENCE", 0.01)
    monkeypatch.setattr(worker, "_POLL", 0.01)
    monkeypatch.setattr(chunks, "_LOOK", 0.01)
    refused, go_on = [], threading.Event()

    def read(data):
        if not go_on.is_set():
            refused.append(data)
            go_on.set()
            raise ImportError("no module named plugin")
        return blocks(data)

    monkeypatch.setattr(chunks, "blocks", read)
    monkeypatch.setattr(Remote, "_send", lambda self: self.url.endswith("1") or go_on.wait(SECONDS))
    some = [Remote(f"test://a/bytes/{number}", None) for number in (1, 2)]
    plans = run(some, inline(1))
    assert [plan.error for plan in plans.values()] == [None, None]
    assert refused


def test_a_bug_at_the_end_loses_no_plan(inline, monkeypatch):
    """If the engine fails while it takes replies, each plan still ends, and says why."""
    monkeypatch.setattr(chunks.Chunks, "_receive", Mock(side_effect=KeyError("bug")))
    some = [Remote(f"test://a/bytes/{number}", None) for number in range(3)]
    plans = run(some, inline(1))
    assert {plan.error.reason for plan in plans.values()} == {
        "the executor failed: KeyError: 'bug'"
    }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BrokenExecutor("gone"), "a worker process died, which broke the executor"),
        (CancelledError(), "the executor was shut down"),
    ],
)
def test_broken(inline, error, reason):
    """If the executor breaks, the rest fails with one reason, and no more is taken."""
    executor, taken = inline(1), []

    def endless():
        while True:
            taken.append(Nop())
            yield taken[-1]

    executor.faults = {1: error}
    plans = run(endless(), executor, backlog=20)
    reasons = {plan.error.reason for plan in plans.values() if plan.error is not None}
    assert len(reasons) == 1
    assert reasons.pop().startswith(reason)
    assert len(plans) == len(taken)


@pytest.mark.parametrize("is_begun", [True, False])
def test_failed_of_a_broken_executor(inline, is_begun):
    """Handlers of Failed are called only for downloads that a worker had begun."""
    executor, told, download = inline(1), [], Remote("test://a/bytes/1", None)
    download.register(Event.FAILED, lambda event: told.append(event.error))
    executor.faults = {0: BrokenExecutor()}
    executor.hook = lambda _: (
        is_begun and Folder(executor.calls[0].folder, executor.calls[0].batch).begin(1)
    )
    plan = run([download], executor)[download]
    assert plan.executed is is_begun
    assert told == [plan.error] * is_begun


def test_its_folder_is_removed(inline):
    """If a worker can't see the folder, which somebody has removed, the batch ends and says so."""
    executor = inline(1)
    executor.hook = lambda number: number and Folder(executor.calls[0].folder, "").remove()
    plans = run([Nop() for _ in range(3 * portions.FIRST)], executor)
    reasons = {plan.error.reason for plan in plans.values() if plan.error is not None}
    assert len(reasons) == 1
    assert f"can't see {executor.calls[0].folder}: somebody has removed it" in reasons.pop()


def tell_writing(monkeypatch):
    """Return an event that the first `_write` of a `Remote` sets."""
    begun, write = threading.Event(), Remote._write
    monkeypatch.setattr(Remote, "_write", lambda self, data: begun.set() or write(self, data))
    return begun


def test_its_folder_is_removed_while_a_download_runs(inline, monkeypatch):
    """What a worker stops because the folder is gone fails with that reason, not as shut down."""
    monkeypatch.setattr(worker, "_POLL", 0.05)
    executor, begun = inline(1), tell_writing(monkeypatch)

    def remove():
        assert begun.wait(SECONDS)
        Folder(executor.calls[0].folder, "").remove()

    remover = threading.Thread(target=remove)
    remover.start()
    [plan] = run([Remote("test://a/block", None)], executor).values()
    remover.join()
    assert plan.executed
    assert "somebody has removed it" in plan.error.reason


def test_running_while_the_executor_is_shut_down(inline, monkeypatch):
    """What runs and what waits fail with the same reason: the executor was shut down."""
    monkeypatch.setattr(worker, "_POLL", 0.05)
    executor, begun = inline(1), tell_writing(monkeypatch)

    def downloads():
        yield Remote("test://a/block", None)
        assert begun.wait(SECONDS)
        executor.faults["submit"] = RuntimeError("cannot schedule new futures after shutdown")
        yield Nop()

    plans = run(downloads(), executor)
    assert [plan.error.reason for plan in plans.values()] == ["the executor was shut down"] * 2


def test_submit_fails(inline):
    """If an executor refuses a chunk, its plans fail with the executor's error, redacted."""
    executor = inline()
    executor.faults["submit"] = ValueError("see https://ann:s3cret@host/")
    plans = run([Nop(), Nop()], executor)
    reasons = {plan.error.reason for plan in plans.values()}
    assert len(reasons) == 1
    assert "the executor failed: ValueError" in (reason := reasons.pop())
    assert "s3cret" not in reason


def test_begun_by_another(inline, monkeypatch):
    """A chunk that a second worker begins counts as lost: its downloads are tried one by one."""
    in_one_chunk(monkeypatch, 3)
    executor = inline(1)
    executor.hook = lambda number: (
        number or Folder(executor.calls[0].folder, executor.calls[0].batch).begin(1)
    )
    plans = run([Nop(), Nop(), Nop()], executor)
    assert {plan.error for plan in plans.values()} == {None}
    assert sizes(executor) == [3, 1, 1, 1]


def test_a_long_chunk_reports_early(inline, monkeypatch):
    """A long chunk returns what is done, and what hasn't started, so that others run it."""
    monkeypatch.setattr(worker, "PATIENCE", 0.1)
    monkeypatch.setattr(worker, "_POLL", 0.05)
    monkeypatch.setattr(chunks, "_LOOK", 0.1)
    # The first report can't be written. The next one has it, too.
    write, fails = Folder.report, iter([True])
    monkeypatch.setattr(
        Folder, "report", lambda *arguments: not next(fails, False) and write(*arguments)
    )
    executor = inline(1)
    quick = [Remote("test://a/bytes/1", None) for _ in range(3)]
    long, behind = Remote("test://a/block", None), Remote("test://a/bytes/1", None)
    batch = Batch([*quick, long, behind], concurrent=1, executor=executor)
    with batch:
        plans = batch()
        assert {next(plans).download for _ in range(3)} == set(quick)
        executor._slots.release()
        assert next(plans).download is behind
        batch.shutdown()
        last = next(plans)
    assert last.download is long
    assert last.executed
    assert "shut down" in last.error.reason


@pytest.mark.parametrize(("other", "shown"), [("wait/200", "waiting 90 s: a test"), ("block", "")])
def test_waits_are_shown(inline, monkeypatch, other, shown):
    """A monitor shows what downloads wait for in a worker, unless another one makes progress."""
    in_one_chunk(monkeypatch, 2)
    monkeypatch.setattr(worker, "PATIENCE", 0.05)
    monkeypatch.setattr(worker, "_POLL", 0.05)
    monkeypatch.setattr(chunks, "_LOOK", 0.05)
    # A download that no thread has taken up yet would be given back.
    monkeypatch.setattr(worker._Run, "_give_back", lambda chunk: None)
    reported = threading.Event()

    def show(*_):
        if record_of(waits).wait is not None and monitor.waiting == shown:
            reported.set()

    monitor = ProgressMonitor(show)
    waits, other = Remote("test://a/wait/90", None), Remote(f"test://a/{other}", None)
    monitor.watch(other)
    monitor.watch(waits)
    with Batch([other, waits], concurrent=2, executor=inline(1)) as batch:
        plans, seen = batch(), []
        reader = threading.Thread(target=lambda: seen.extend(plans))
        reader.start()
        assert reported.wait(SECONDS)
        batch.shutdown()
        reader.join(SECONDS)
    assert len(seen) == 2
    assert monitor.waiting == ""
    assert record_of(waits).wait is None


def test_a_monitor_that_fails_to_show_a_wait(inline, monkeypatch, caplog):
    """If a monitor can't show a wait, it is logged, and the batch goes on."""
    monkeypatch.setattr(chunks, "_LOOK", 0.05)
    monitor, download = ProgressMonitor(Mock(side_effect=KeyError)), Remote("test://a/block", None)
    monitor.watch(download)
    with Batch([download], executor=inline(1)) as batch:
        plans, seen = batch(), []
        reader = threading.Thread(target=lambda: seen.extend(plans))
        reader.start()
        while "could not show what" not in caplog.text:
            assert reader.is_alive()
            reader.join(0.01)
        batch.shutdown()
        reader.join(SECONDS)
    assert "shut down" in seen[0].error.reason


def test_what_is_still_packed_is_given_back(inline, monkeypatch):
    """A chunk that takes long also gives back the downloads that its worker hasn't unpickled."""
    monkeypatch.setattr(portions, "FIRST", 3 * BLOCK)
    monkeypatch.setattr(worker, "_POLL", 0.01)
    monkeypatch.setattr(worker, "PATIENCE", 0.05)
    monkeypatch.setattr(chunks, "_LOOK", 0.05)
    some = [Remote("test://a/block", None), *(Nop() for _ in range(6 * BLOCK - 1))]
    with Batch(some, concurrent=1, executor=inline(2)) as batch:
        plans = batch()
        done = [next(plans).result() for _ in some[1:]]
        batch.shutdown()
        assert [plan.download for plan in plans] == some[:1]
    assert set(done) == set(some[1:])


def test_nothing_new_is_not_reported(inline, monkeypatch):
    """A chunk whose downloads all make progress writes no early report."""
    monkeypatch.setattr(worker, "PATIENCE", 0.01)
    monkeypatch.setattr(worker, "_POLL", 0.01)
    spool, turns, several, written = worker._Run._spool, [], threading.Event(), []

    def counted(chunk):
        spool(chunk)
        turns.append(chunk)
        if len(turns) == 3:
            several.set()

    monkeypatch.setattr(worker._Run, "_spool", counted)
    # A download that no thread has taken up yet would be given back, which is news.
    monkeypatch.setattr(worker._Run, "_give_back", lambda chunk: None)
    monkeypatch.setattr(Folder, "report", lambda *arguments: written.append(arguments))
    with Batch([Remote("test://a/block", None)], executor=inline(1)) as batch:
        plans, seen = batch(), []
        reader = threading.Thread(target=lambda: seen.extend(plans))
        reader.start()
        assert several.wait(SECONDS)
        batch.shutdown()
        reader.join(SECONDS)
    assert "shut down" in seen[0].error.reason
    assert written == []


def test_shutdown_without_a_shared_folder(inline, monkeypatch):
    """Without a shared file system, `shutdown()` is bounded, and the chunk ends by itself."""
    monkeypatch.setattr(chunks, "_LAST", 0.1)
    executor, released = inline(1), threading.Event()
    executor.hook = lambda number: released.wait(SECONDS)
    batch = Batch([Nop(), Nop()], executor=executor)
    plans, seen = batch(), []
    reader = threading.Thread(target=lambda: seen.extend(plans))
    reader.start()
    while not executor.calls:
        pass
    batch.shutdown()
    reader.join(SECONDS)
    released.set()
    assert ["shut down" in plan.error.reason for plan in seen] == [True, True]


def test_a_chunk_after_the_end(tmp_path):
    """A worker runs nothing of a batch that it knows to have ended."""
    folder = Folder.create("b")
    folder.stop()
    seen = worker.Reply(*worker.work("b", 1, folder.path, False, 1, None, b"never read"))
    folder.remove()
    local = worker.Reply(*worker.work("c", 1, folder.path, True, 1, None, b"never read"))
    assert seen == local == worker.Reply(is_late=True)
    worker.close()


def test_local(inline):
    """The workers of a pool of processes see the batch's folder; those of others may not."""
    with ProcessPoolExecutor(1) as pool, executors.Renewed(1) as renewed:
        kinds = [executors.processes(each).is_local for each in (pool, renewed, inline(1))]
    assert kinds == [True, True, False]


def test_two_batches_in_one_process():
    """A worker closes the connections of a batch, and not those of another that it works for."""
    with worker._session("one") as one, worker._session("two"):
        one.context.close = Mock()
        worker.close("two")
        assert set(worker._sessions) == {"one", "two"}
    with worker._session("one") as same:
        assert same is one
    worker.close("one")
    assert one.context.close.called
    worker.close()
    assert worker._sessions == {}


def test_no_thread(monkeypatch, inline):
    """If the system can't start a thread, the plans fail with its error."""
    batch = Batch([Nop()], executor=inline())
    error = RuntimeError("can't start new thread")
    monkeypatch.setattr(batch._engine._workers, "run", Mock(side_effect=error))
    start_twice(batch)
    assert [plan.error for plan in batch()] == [error]


def start_twice(batch):
    """Have each plan of a batch started twice, as after an interrupt."""
    start = batch._engine.start
    batch._engine.start = lambda *arguments: [start(*arguments), start(*arguments)]


def test_left_open(inline):
    """At exit a batch is cancelled, unless a thread that still runs iterates over it."""
    held = threading.Event()
    other = threading.Thread(target=held.wait, args=(SECONDS,))
    other.start()
    left, used, simple = Batch([], executor=inline()), Batch([], executor=inline()), Batch([])
    used._engine.consumer = other.ident
    chunks._end_open()
    held.set()
    other.join()
    assert [batch.is_shutdown for batch in (left, used, simple)] == [True, False, False]
    for batch in (left, used, simple):
        batch.shutdown()


def test_started_twice(inline):
    """A plan that was started twice, after an interrupt, runs once."""
    executor = inline(1)
    batch = Batch([Nop()], executor=executor)
    start_twice(batch)
    with batch:
        assert len(list(batch())) == 1
    assert sum(sizes(executor)) == 1


def test_number_of_workers():
    """The number of workers is the executor's, as far as it tells, otherwise 4."""
    assert executors.processes(Inline(7)).workers() == 7
    assert executors.processes(Inline(1)._slots).workers() == executors.DEFAULT_WORKERS
    client = Mock()
    client.nthreads.return_value = {"a": 2, "b": 3}
    cluster = executors.processes(Mock(_client=client))
    assert isinstance(cluster, executors.Cluster)
    assert [cluster.workers(), cluster.workers()] == [5, 5]
    assert client.nthreads.call_count == 1
    client.nthreads.side_effect = OSError
    assert executors.Cluster(Mock(), client).workers() == executors.DEFAULT_WORKERS


def test_handlers_at_home_run_in_the_consumer_s_thread(inline):
    """Handlers of Succeeded are called before the plan is returned, in the consumer's thread."""
    seen, download = [], Remote("test://a/bytes/1", None)
    download.register(Event.SUCCEEDED, lambda event: seen.append(threading.current_thread()))
    with Batch([download], executor=inline()) as batch:
        for _ in batch():
            assert seen == [threading.current_thread()]


class Listener(DownloadMonitor):
    """A monitor with a handler of its own."""

    def listen(self, event):
        """Take a buffer."""


@pytest.mark.parametrize("handler", [Fetched, Listener().listen], ids=["function", "of a monitor"])
def test_other_handlers_beside_a_monitor(inline, handler):
    """A handler that would have to run in the worker is refused, also one of a monitor's class."""
    download = Remote("test://a/bytes/1", None)
    DownloadMonitor(download)
    download.register(Event.FETCHED, handler)
    error = run([download], inline())[download].error
    assert isinstance(error, ValueError)
    assert handler.__qualname__ in str(error)


def test_several_can_t_travel(inline):
    """If all downloads of a chunk can't be pickled, each plan fails, and nothing is sent."""
    executor = inline(1)
    plans = run([Stub(lambda _: None), Stub(lambda _: None)], executor)
    assert {type(plan.error) for plan in plans.values()} == {ValueError}
    assert executor.calls == []


def test_only_together_they_can_t_travel(inline, monkeypatch):
    """Downloads that can only be pickled one by one are sent one by one."""
    executor = inline(1)
    batch = Batch([Nop(1), Nop(2), Nop(3)], executor=executor)
    pack = batch._engine._packer.pack
    refuse = Mock(side_effect=ValueError("together"))
    monkeypatch.setattr(
        batch._engine._packer, "pack", lambda specs: (pack if len(specs) == 1 else refuse)(specs)
    )
    with batch:
        assert [plan.error for plan in batch()] == [None] * 3
    assert sizes(executor) == [1, 1, 1]


def test_a_report_that_can_t_be_applied(inline, monkeypatch):
    """If a plugin's class raises when its state is set, the plan has that error."""
    error = KeyError("mine")
    monkeypatch.setattr(Report, "apply", Mock(side_effect=error))
    download = Nop()
    assert run([download], inline())[download].error is error


def test_not_started():
    """A download that a worker didn't start, because the batch ended, sends no event."""
    download = handled(Event.FAILED)
    chunks._settle(plan := Plan(download), Report(False, DownloadFailed("ended")), Mock(), Mock())
    assert not plan.executed
    assert plan.deliver is None
    assert plan.error.download is download


def test_shared_by_identity(inline):
    """Downloads that share a rate limiter or limits share them in a worker, in all chunks."""
    limiter, limits, mine = RateLimiter(1e6), Limits(per_host=3), Limits(bandwidth=1e9)
    packer, twins, seen = Packer(limits), {}, []
    for _ in range(2):
        download = Remote("test://a/bytes/1", None)
        download.rate_limiter, download.limits = limiter, mine
        (((twin, _),),) = unpack(packer.pack([(download, [])]), twins)
        seen.append((id(twin.rate_limiter), id(twin.limits), id(record_of(twin).limits)))
    assert seen[0] == seen[1]
    assert twin.limits.bandwidth == 1e9
    assert record_of(twin).limits.per_host == 3
    assert twin.rate_limiter.delay() < 1


def test_bytes_in_flight(inline):
    """A limit on the bytes in flight holds a chunk up only until reports free the bytes."""
    downloads = [Remote(f"test://a/bytes/{9 + n % 2}", None) for n in range(20)]
    for download in downloads:
        download.limits = Limits(in_flight=10)
    plans = run(downloads, inline(1), limits=Limits(in_flight=10))
    assert {plan.error for plan in plans.values()} == {None}


def test_a_limiter_that_is_gone():
    """A new rate limiter at the address of a freed one gets its own twin in the worker."""
    packer, twins = Packer(), {}
    download = Remote("test://a/bytes/1", None)
    limiters = [RateLimiter(rate) for rate in (1, 2, 3)]
    for limiter in limiters:
        download.rate_limiter = limiter
        (((twin, _),),) = unpack(packer.pack([(download, [])]), twins)
        assert pickle.dumps(twin.rate_limiter) == pickle.dumps(limiter)
        # The second one gets the address of the first.
        packer._numbers[id(limiters[1])] = (lambda: None, 0)
    assert len(twins) == 3


def test_workers_of_the_program_ignore_ctrl_c(monkeypatch):
    """The workers of a program's pool ignore Ctrl-C, which the terminal sends to them, too."""
    monkeypatch.setattr(signal, "signal", set_handler := Mock())
    executors._ignore_interrupts()
    assert set_handler.call_args == ((signal.SIGINT, signal.SIG_IGN),)
    executors.Renewed(1).shutdown()


def test_early_reports(tmp_path):
    """Only complete early reports are read, each once."""
    folder = Folder(str(tmp_path), "b")
    assert list(folder.reports(1, 0)) == []
    assert folder.report(1, "one")
    path = tmp_path / "done-1"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\x80\x05")
    assert list(folder.reports(1, 0)) == [("one", size)]
    assert list(folder.reports(1, size)) == []
    assert not Folder(str(Path(tmp_path) / "none"), "b").report(1, "one")


def test_an_early_report_on_a_full_disk(tmp_path):
    """A report of which the disk took a part is removed, so that the next one can be read."""
    folder = Folder(str(tmp_path), "b")
    assert folder.report(1, "first")
    size = (tmp_path / "done-1").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        assert not folder.report(1, "does not fit")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "done-1").stat().st_size == size
    assert folder.report(1, "third")
    assert [report for report, _ in folder.reports(1, 0)] == ["first", "third"]


def test_a_folder_that_can_t_be_filled(tmp_path, monkeypatch):
    """A folder in which no file can be created is removed again."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Folder, "_file", lambda self, *key: str(tmp_path / "missing" / "running"))
    with pytest.raises(FileNotFoundError):
        Folder.create("b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [BrokenExecutor, ConnectionRefusedError, EOFError])
def test_pools_that_break_at_once(monkeypatch, error):
    """A pool that breaks while it gets a chunk is replaced, but not for ever."""
    errors = []

    def submit(pool, function, *arguments):
        if errors:
            raise errors.pop()
        return pool

    made = Mock(side_effect=lambda *arguments, **options: object())
    monkeypatch.setattr(executors, "ProcessPoolExecutor", made)
    monkeypatch.setattr(executors.killed, "submit", submit)
    monkeypatch.setattr(executors.killed, "shut_down", ended := Mock())
    pool = executors.Renewed(2)
    first = pool.submit(int)
    assert pool.submit(int) is first
    errors += [error(), error()]
    assert pool.submit(int) is not first
    assert made.call_count == 3
    assert ended.call_count == 2
    errors += [error()] * 9
    with pytest.raises(error):
        pool.submit(int)
    assert made.call_count == 3 + executors._TRIES - 1
