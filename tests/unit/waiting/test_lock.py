"""A lock that survives a fork."""

import threading

from processes import forked

from pulpcore.plugin.download.futures.waiting.lock import ForkSafeLock


def test_excludes():
    """While one thread has it, no other gets it."""
    lock, count = ForkSafeLock(), 0

    def work():
        nonlocal count
        for _ in range(1000):
            with lock:
                before = count
                count = before + 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert count == 8000


def test_reentrant():
    """Who has it gets it again."""
    lock = ForkSafeLock()
    with lock, lock:
        pass


def test_forked_child_while_it_is_held():
    """A child finds it free, though another thread of the parent's held it."""
    lock = ForkSafeLock()
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            go_on.wait(20)

    def child():
        with lock:
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(20)
        assert forked(child) == 0
    finally:
        go_on.set()
        thread.join(20)
