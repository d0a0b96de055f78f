"""Tests of digests that are computed in helper threads beside the transfer."""

import _thread
import functools
import hashlib
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

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
# As much as a helper thread gets at once.
PART = BUFFER * (PIECE // len(BUFFER))


class Fake:
    """A digest that is its own copy, so that the test sees its state."""

    def copy(self):
        """Return itself."""
        return self


class Slow(Fake):
    """A digest that computes only when the test lets it, and records its threads."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.threads: list[threading.Thread] = []
        self.sizes: list[int] = []

    def update(self, buffer: bytes) -> None:
        """Take a buffer when the test says so."""
        self.go_on.wait(20)
        self.threads.append(threading.current_thread())
        self.sizes.append(len(buffer))


@pytest.fixture(autouse=True)
def own_helpers(monkeypatch):
    """Give each test its own helper threads, as on a machine with two processors."""
    monkeypatch.setattr(module, "_helpers_of", functools.cache(module._helpers_of.__wrapped__))
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)


def large(algorithm, monkeypatch):
    """Make a digest that is already computed by threads, with an algorithm of the test's."""
    digest = Digest("sha256")
    monkeypatch.setattr(digest, "_hash", algorithm)
    digest.size = LARGE
    return digest


@pytest.mark.parametrize(
    "size", [1, 2047, 2048, SMALL, SMALL + 1, LEAST - 1, LEAST, LARGE, LARGE + 1]
)
@pytest.mark.parametrize("total", [0, 1, LARGE, 5 * LARGE])
def test_right(size, total):
    """The digest is right for any size of content and of buffers."""
    content = (BUFFER * (total // len(BUFFER) + 1))[:total]
    if total > LARGE and size == 1:
        size = 1001
    digest = Digest("sha256")
    for start in range(0, total, size):
        digest.update(content[start : start + size])
    assert digest.current().hexdigest() == hashlib.sha256(content).hexdigest()


def test_right_at_once():
    """Many digests of the same buffers, with more threads than helpers, are right."""
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
            found = digest.current()
            assert found.hexdigest() == hashlib.new(found.name, content).hexdigest()


def test_goes_on_after_it_was_settled():
    """A digest may be read in the middle and then updated further."""
    digest = Digest("sha256")
    for count in range(1, 40):
        digest.update(BUFFER)
        assert digest.current().hexdigest() == hashlib.sha256(BUFFER * count).hexdigest()


def test_beside():
    """Helper threads compute the digest of a large file, but not that of a small one."""
    names = set()

    class Watched(Fake):
        def update(self, buffer):
            names.add(threading.current_thread().name)

    digest = Digest("sha256")
    digest._hash = Watched()
    for _ in range(LARGE // len(BUFFER)):
        digest.update(BUFFER)
    assert names == {threading.current_thread().name}
    names.clear()
    digest.update(PART)
    digest.current()
    assert all(name.startswith("download-digest") for name in names)
    assert names


def test_rest(monkeypatch):
    """Bytes too few for a helper are hashed once, by the thread that reads the digest."""
    slow = Slow()
    slow.go_on.set()
    digest = large(slow, monkeypatch)
    digest.update(BUFFER)
    for _ in range(2):
        assert digest.current() is slow
    assert slow.threads == [threading.current_thread()]


@pytest.mark.parametrize("size", [len(BUFFER), PIECE])
def test_asked_by_several(size):
    """Threads that read a digest at once each get that of all bytes so far."""
    digest = Digest("sha256")
    content = b"".join(bytes([n]) * size for n in range(5 * LARGE // size))
    allowed = {
        hashlib.sha256(content[:end]).hexdigest() for end in range(0, len(content) + 1, size)
    }
    found = []
    done = threading.Event()

    def look():
        while not done.is_set():
            found.append(digest.current().hexdigest())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for start in range(0, len(content), size):
        digest.update(content[start : start + size])
    done.set()
    for thread in threads:
        thread.join(20)
    assert set(found) <= allowed
    assert digest.current().hexdigest() == hashlib.sha256(content).hexdigest()


def test_asked_at_the_first_bytes():
    """Reading the digest while the first bytes arrive loses none of them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool:
            for _ in range(300):
                digest = Digest("sha256")
                looking = pool.submit(digest.current)
                digest.update(b"d" * 4000)
                looking.result(20)
                expected = hashlib.sha256(b"d" * 4000).hexdigest()
                assert digest.current().hexdigest() == expected
    finally:
        sys.setswitchinterval(interval)


def test_side_by_side(monkeypatch):
    """Two digests are computed at the same time in two threads."""
    barrier = threading.Barrier(2)

    class Together(Fake):
        def update(self, buffer):
            barrier.wait(20)

    digests = [large(Together(), monkeypatch) for _ in range(2)]
    for digest in digests:
        digest.update(PART)
    for digest in digests:
        digest.current()


def test_no_more_threads_than_processors(monkeypatch):
    """On two processors two helper threads compute five digests in turns."""
    slow = [Slow() for _ in range(5)]
    digests = [large(algorithm, monkeypatch) for algorithm in slow]
    for digest in digests * 3:
        digest.update(PART)
    for algorithm in slow:
        algorithm.go_on.set()
    for digest in digests:
        digest.current()
    assert all(len(algorithm.sizes) == 3 for algorithm in slow)
    assert len({thread for algorithm in slow for thread in algorithm.threads}) <= 2


def test_bounded(monkeypatch):
    """A thread that adds buffers faster than they are hashed has to wait: memory is bounded."""
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
        return digest._queue is not None and digest._queue._waiting

    while not is_waiting():
        assert thread.is_alive()
        time.sleep(0.001)
    # The buffers that were added before any could be hashed.
    assert WINDOW - len(BUFFER) < len(brought) * len(BUFFER) <= WINDOW
    slow.go_on.set()
    thread.join(20)
    digest.current()
    assert sum(slow.sizes) == MANY * len(BUFFER)


def test_changing_buffer(monkeypatch):
    """A mutable buffer is hashed at once, after the buffers before it."""
    content = bytearray(BUFFER)
    digest = Digest("sha256")
    expected = hashlib.sha256()
    for number in range(40):
        buffer = content if number % 3 == 0 else bytes(content)
        digest.update(buffer)
        expected.update(buffer)
        content[number] ^= 255
    assert digest.current().digest() == expected.digest()


def test_failure(monkeypatch):
    """An error of a helper is raised to the reader of the digest, and no thread waits for ever."""

    class Broken(Fake):
        def update(self, buffer):
            raise MemoryError

    digest = large(Broken(), monkeypatch)
    for _ in range(MANY):
        digest.update(BUFFER)
    with pytest.raises(MemoryError):
        digest.current()


def test_no_thread_to_be_had(monkeypatch):
    """If no thread can be started, the thread that adds the buffers hashes them."""

    def refuse(function, arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    digest = Digest("sha256")
    for count in range(1, 41):
        digest.update(BUFFER)
        assert (
            count % 7 or digest.current().hexdigest() == hashlib.sha256(BUFFER * count).hexdigest()
        )


def test_no_thread_when_it_is_asked(monkeypatch):
    """If the helpers are gone, the reader of the digest computes the rest."""

    def refuse(function):
        raise RuntimeError("can't start new thread")

    slow = Slow()
    digest = large(slow, monkeypatch)
    digest.update(PART)
    while digest._queue._buffers and not digest._queue._working.locked():
        time.sleep(0.001)
    digest.update(PART)
    helpers = module._helpers_of(module.Process.current)
    with monkeypatch.context() as patch:
        patch.setattr(digest._queue, "_working", threading.Lock())
        patch.setattr(helpers, "run", refuse)
        slow.go_on.set()
        assert digest.current() is slow
    assert len(PART) in slow.sizes


def test_unknown_number_of_processors(monkeypatch):
    """If the number of processors is unknown, there is one helper thread."""
    monkeypatch.delattr(module.os, "sched_getaffinity", raising=False)
    assert module._helpers_of(None)._most == 1


@pytest.mark.parametrize("count", [1, 20, 150])
def test_forked_child(count):
    """A forked child reads the digest of the bytes before the fork and can continue it.

    This works whatever the parent's threads, which the child lacks, were doing at that moment.
    """
    digest = Digest("sha256")
    for _ in range(count):
        digest.update(BUFFER)

    def child():
        for more in range(60):
            expected = hashlib.sha256(BUFFER * (count + more)).hexdigest()
            assert more % 20 or digest.current().hexdigest() == expected
            digest.update(BUFFER)

    assert forked(child) == 0
    assert digest.current().hexdigest() == hashlib.sha256(BUFFER * count).hexdigest()


def test_threads_go():
    """Helper threads without work end by themselves."""
    digest = Digest("sha256")
    for _ in range(20):
        digest.update(BUFFER)
    digest.current()
    for thread in threading.enumerate():
        # One that is about to start can't be joined.
        if thread.name.startswith("download-digest") and thread.ident is not None:
            thread.join(20)
            assert not thread.is_alive()


class TestQueue:
    """The buffers of one digest. The test plays the helper thread."""

    @pytest.fixture
    def queue(self, monkeypatch):
        """Make a queue that waits for the test to hash its buffers."""
        monkeypatch.setattr(module, "PIECE", 4)
        monkeypatch.setattr(module, "_helpers_of", lambda _: Mock())
        return module._Queue(hashlib.sha256())

    def test_one_works(self, queue):
        """While a helper thread hashes, another one that is called for the same digest goes on."""
        queue.add(b"x")
        queue._working.acquire()
        with ThreadPoolExecutor(1) as pool:
            try:
                pool.submit(queue._work).result(10)
                assert queue._done[1] == 0
            finally:
                queue._working.release()

    def test_done_before_the_wait(self, queue):
        """A caller doesn't wait if the helper thread ends just before."""

        class Waiting(deque):
            def append(self, waiter):
                queue._work()
                super().append(waiter)

        queue._waiting = Waiting()
        queue.add(b"abcdef")
        assert queue.total().digest() == hashlib.sha256(b"abcdef").digest()
        assert queue._left() == 0

    def test_done_while_it_is_read(self, queue):
        """A sum that the helper thread overtakes begins again, and counts each buffer once."""

        class Buffers(deque):
            def __iter__(self):
                buffers = super().__iter__()
                if queue._done[1] == 0 and not queue._working.locked():
                    queue._work()
                    buffers = super().__iter__()
                return buffers

        queue._buffers = Buffers()
        queue.add(b"ab")
        assert queue._sum()[0].digest() == hashlib.sha256(b"ab").digest()
        assert queue._done[1] == 1

    def test_hashed_and_not_removed(self, queue):
        """A buffer that the helper thread has hashed and not yet removed is counted once."""
        sums = []

        class Buffers(deque):
            def popleft(self):
                sums.append(queue.total().digest())
                return super().popleft()

        queue._buffers = Buffers()
        queue.add(b"ab")
        queue.add(b"c")
        queue._work()
        assert sums == [hashlib.sha256(b"abc").digest()] * 2

    def test_failure(self, queue, monkeypatch):
        """A failure of the helper thread, such as a lack of memory, is raised by total()."""
        monkeypatch.setattr(queue, "_add_waiting", Mock(side_effect=MemoryError))
        queue.add(b"ab")
        queue._work()
        with pytest.raises(MemoryError):
            queue.total()
