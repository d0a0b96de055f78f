"""Digests that are computed beside the transfer."""

import functools
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import forked

from pulpcore.plugin.download.futures.storage import digest as module
from pulpcore.plugin.download.futures.storage.digest import (
    LARGE,
    LEAST,
    PIECE,
    SMALL,
    WINDOW,
    Digest,
)

BUFFER = bytes(range(256)) * 512
MANY = 3 * WINDOW // len(BUFFER)
# As much as a thread is given.
PART = BUFFER * (PIECE // len(BUFFER))


class Slow:
    """A digest that is computed only when somebody lets it, and knows the threads that did."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.threads: list[threading.Thread] = []
        self.sizes: list[int] = []

    def update(self, buffer: bytes) -> None:
        """Take a buffer, when the test says so."""
        self.go_on.wait(20)
        self.threads.append(threading.current_thread())
        self.sizes.append(len(buffer))


@pytest.fixture(autouse=True)
def own_helpers(monkeypatch):
    """Threads of each test's own, as many as two processors would have."""
    helpers = functools.cache(lambda process: module._Helpers())
    monkeypatch.setattr(module, "_helpers_of", helpers)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)


def large(algorithm, monkeypatch):
    """A digest that has gone over to threads, with an algorithm of the test's."""
    digest = Digest("sha256")
    monkeypatch.setattr(digest, "_hash", algorithm)
    digest._size = LARGE
    return digest


@pytest.mark.parametrize(
    "size", [1, 2047, 2048, SMALL, SMALL + 1, LEAST - 1, LEAST, LARGE, LARGE + 1]
)
@pytest.mark.parametrize("total", [0, 1, LARGE, 5 * LARGE])
def test_right(size, total):
    """However large the content is, and however it comes, the digest is that of all of it."""
    content = (BUFFER * (total // len(BUFFER) + 1))[:total]
    if total > LARGE and size == 1:
        size = 1001
    digest = Digest("sha256")
    for start in range(0, total, size):
        digest.update(content[start : start + size])
    assert digest.settle().hexdigest() == hashlib.sha256(content).hexdigest()


def test_right_at_once():
    """Many digests of the same buffers, by more threads than there are helpers, are right."""
    digests = [[Digest(name) for name in ("sha512", "sha1", "md5", "sha256")] for _ in range(6)]
    kinds = [BUFFER, BUFFER[:100], bytearray(BUFFER), BUFFER[1:]]

    def feed(mine):
        for number in range(120):
            for digest in mine:
                digest.update(kinds[number % 7 % 4])

    threads = [threading.Thread(target=feed, args=(mine,)) for mine in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    content = b"".join(kinds[number % 7 % 4] for number in range(120))
    for mine in digests:
        for digest in mine:
            found = digest.settle()
            assert found.hexdigest() == hashlib.new(found.name, content).hexdigest()


def test_goes_on_after_it_was_settled():
    """It may be looked at in the middle."""
    digest = Digest("sha256")
    for count in range(1, 40):
        digest.update(BUFFER)
        assert digest.settle().hexdigest() == hashlib.sha256(BUFFER * count).hexdigest()


def test_beside():
    """A large file is worked on by other threads, and a small one by nobody else's."""
    names = set()

    class Watched:
        def update(self, buffer):
            names.add(threading.current_thread().name)

    digest = Digest("sha256")
    digest._hash = Watched()
    for _ in range(LARGE // len(BUFFER)):
        digest.update(BUFFER)
    assert names == {threading.current_thread().name}
    names.clear()
    digest.update(PART)
    digest.settle()
    assert names == {"download-digest"}


def test_rest(monkeypatch):
    """What is too little for another thread is worked on by who wants the digest."""
    slow = Slow()
    slow.go_on.set()
    digest = large(slow, monkeypatch)
    for _ in range(PIECE // len(BUFFER) + 1):
        digest.update(BUFFER)
    digest.settle()
    assert sum(slow.sizes) == PIECE + len(BUFFER)
    slow.threads.clear()
    digest.update(BUFFER)
    digest.settle()
    assert slow.threads == [threading.current_thread()]


def test_brought_while_asked(monkeypatch):
    """What comes while somebody works on the rest is worked on, though no thread was there."""
    slow = Slow()
    digest = large(slow, monkeypatch)
    digest.update(BUFFER)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(digest.settle)
        while digest._lane._buffers:
            time.sleep(0.001)
        digest.update(PART)
        slow.go_on.set()
        asked.result(20)
        assert pool.submit(digest.settle).result(20) is slow
    assert slow.sizes == [len(BUFFER), len(PART)]
    assert slow.threads[-1].name == "download-digest"


def test_asked_by_several(monkeypatch):
    """Several threads may want the digest: each gets that of all that came."""
    slow = Slow()
    digest = large(slow, monkeypatch)
    digest.update(BUFFER)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(digest.settle) for _ in range(4)]
        slow.go_on.set()
        assert {id(future.result(20)) for future in futures} == {id(slow)}
    assert slow.sizes == [len(BUFFER)]


def test_side_by_side(monkeypatch):
    """Two digests are computed at the same time: each waits for the other here."""
    barrier = threading.Barrier(2)

    class Together:
        def update(self, buffer):
            barrier.wait(20)

    digests = [large(Together(), monkeypatch) for _ in range(2)]
    for digest in digests:
        digest.update(PART)
    for digest in digests:
        digest.settle()


def test_no_more_threads_than_processors(monkeypatch):
    """Five digests on two processors are computed by two threads, which take turns."""
    slow = [Slow() for _ in range(5)]
    digests = [large(algorithm, monkeypatch) for algorithm in slow]
    for digest in digests * 3:
        digest.update(PART)
    for algorithm in slow:
        algorithm.go_on.set()
    for digest in digests:
        digest.settle()
    assert all(len(algorithm.sizes) == 3 for algorithm in slow)
    assert len({thread for algorithm in slow for thread in algorithm.threads}) <= 2


def test_bounded(monkeypatch):
    """Whoever brings more than may wait, waits: memory is bounded."""
    slow = Slow()
    digest = large(slow, monkeypatch)
    brought = []

    def bring():
        for _ in range(MANY):
            digest.update(BUFFER)
            brought.append(1)

    thread = threading.Thread(target=bring)
    thread.start()

    def is_waiting():
        return digest._lane is not None and digest._lane._helpers.done._waiters

    while not is_waiting():
        assert thread.is_alive()
        time.sleep(0.001)
    # What was brought before anything could be worked on.
    assert WINDOW < len(brought) * len(BUFFER) <= WINDOW + len(BUFFER)
    slow.go_on.set()
    thread.join(20)
    digest.settle()
    assert sum(slow.sizes) == MANY * len(BUFFER)


def test_changing_buffer(monkeypatch):
    """A buffer that can be changed afterwards is worked on at once, behind those before it."""
    content = bytearray(BUFFER)
    digest = Digest("sha256")
    expected = hashlib.sha256()
    for number in range(40):
        buffer = content if number % 3 == 0 else bytes(content)
        digest.update(buffer)
        expected.update(buffer)
        content[number] ^= 255
    assert digest.settle().digest() == expected.digest()


def test_failure(monkeypatch):
    """What goes wrong in the thread is raised to whoever wants the digest, and nobody waits."""

    class Broken:
        def update(self, buffer):
            raise MemoryError

    digest = large(Broken(), monkeypatch)
    for _ in range(MANY):
        digest.update(BUFFER)
    with pytest.raises(MemoryError):
        digest.settle()


def test_interrupted(monkeypatch):
    """An interrupt is for who computes; whoever asks later is told why there is no digest."""

    class Interrupted:
        def update(self, buffer):
            raise KeyboardInterrupt

    digest = large(Interrupted(), monkeypatch)
    digest.update(BUFFER)
    with pytest.raises(KeyboardInterrupt):
        digest.settle()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="interrupted"):
            digest.settle()


def test_no_thread_to_be_had(monkeypatch):
    """Where the system gives no thread, the one that brings the buffers does it."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    digest = Digest("sha256")
    for _ in range(20):
        digest.update(BUFFER)
    assert digest.settle().hexdigest() == hashlib.sha256(BUFFER * 20).hexdigest()


def test_unknown_number_of_processors(monkeypatch):
    """Where the system doesn't say it, there is one thread."""
    monkeypatch.delattr(module.os, "sched_getaffinity", raising=False)
    assert module._Helpers()._most == 1


def test_forked_child():
    """A child has threads of its own; it can't go on with what its parent has begun."""
    begun = Digest("sha256")
    for _ in range(20):
        begun.update(BUFFER)

    def child():
        for use in (begun.settle, lambda: begun.update(BUFFER)):
            with pytest.raises(RuntimeError, match="forked"):
                use()
        digest = Digest("sha256")
        for _ in range(20):
            digest.update(BUFFER)
        assert digest.settle().hexdigest() == hashlib.sha256(BUFFER * 20).hexdigest()

    assert forked(child) == 0
    begun.settle()


def test_threads_go():
    """When there is nothing to do the threads end by themselves."""
    digest = Digest("sha256")
    for _ in range(20):
        digest.update(BUFFER)
    digest.settle()
    for thread in threading.enumerate():
        if thread.name == "download-digest":
            thread.join(20)
            assert not thread.is_alive()


def test_all_threads_are_counted(monkeypatch):
    """A thread that puts a digest back for more is counted once: others still come beside it."""
    slow = Slow()
    digest = large(slow, monkeypatch)
    digest.update(PART)
    while digest._lane._buffers:
        time.sleep(0.001)
    digest.update(PART)
    slow.go_on.set()
    digest.settle()
    (thread,) = set(slow.threads)
    thread.join(20)
    assert digest._lane._helpers._threads == 0
