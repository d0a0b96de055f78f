"""A download makes no more function calls than its limits allow, on any machine."""

import threading

import pytest

from benchmarks import counts


def test_counter() -> None:
    """The counter counts calls of Python and C functions, including those in new threads."""

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


@pytest.mark.timeout(600)  # starts interpreters, some of them under strace
def test_counts() -> None:
    """A small file, a buffer and an empty download make no more calls than counts.toml allows.

    System calls are only counted if strace is installed and permitted.
    """
    system_calls = counts.can_trace()
    found = list(counts.measure(system_calls))
    for each in found:
        assert 0 < each.ratio <= each.limit, each
    untraced = set() if system_calls else {"system_calls_per_file"}
    assert {each.name for each in found} | untraced == set(counts.limits())
