"""What a download costs in calls is within its limits, on any machine."""

import threading

import pytest

from benchmarks import counts


def test_counter() -> None:
    """Calls of Python's and of C's functions count, those of threads that are started too."""

    def work() -> None:
        len("")
        len("")

    def other() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    alone = counts.count(lambda: None)
    assert counts.count(work) == alone + 2
    assert counts.count(other) > counts.count(work) + 3


@pytest.mark.timeout(600)  # it starts interpreters, and has strace look at them
def test_counts() -> None:
    """A small file, a buffer and a download that does nothing cost no more calls than they may.

    System calls are counted where strace is installed and may be used.
    """
    system_calls = counts.can_trace()
    found = list(counts.measure(system_calls))
    for each in found:
        assert 0 < each.ratio <= each.limit, each
    untraced = set() if system_calls else {"system_calls_per_file"}
    assert {each.name for each in found} | untraced == set(counts.limits())
