"""Tests of what makes a ProcessPoolExecutor end after one of its processes was killed."""

import fcntl
import os
import pickle
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from unittest.mock import Mock

import pytest

from pulpcore.plugin.download.futures.pool import killed

SECONDS = 10


@pytest.fixture
def pipe():
    """Return both ends of a pipe, as a pool's queue has one."""
    reader, writer = Pipe(duplex=False)
    yield reader, writer
    reader.close()
    writer.close()


def test_writer_gets_an_error(pipe):
    """A thread that writes to a full pipe gets an error."""
    reader, writer = pipe
    errors = []

    def write():
        try:
            writer.send_bytes(bytes(1 << 20))
        except BrokenPipeError as error:
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    killed._close_when_full(reader, writer, thread)
    thread.join(SECONDS)
    assert len(errors) == 1


def test_large_descriptor(pipe):
    """A program with more than a thousand open files is helped, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        writer = Connection(fcntl.fcntl(pipe[1], fcntl.F_DUPFD_CLOEXEC, 1100), readable=False)
        with writer:
            killed._pad(writer, Mock(is_alive=Mock(side_effect=[True, False])))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pipe[0].poll()


def test_pool_that_ends(pipe):
    """The pipe of a pool that ends by itself stays open."""
    killed._close_when_full(*pipe, Mock(is_alive=Mock(side_effect=[True, False])))
    os.fstat(pipe[0].fileno())


def test_closed_by_the_pool(pipe):
    """If a pool has closed its pipe, nothing is done."""
    pipe[1].close()
    killed._close_when_full(*pipe, Mock(is_alive=Mock(return_value=True)))
    assert not pipe[0].closed


def test_other_executor():
    """An executor that isn't a ProcessPoolExecutor is left unchanged."""
    with ThreadPoolExecutor(1) as executor:
        killed.release(executor)
        killed.end(executor)
        assert killed.unnoticed(executor) == set()
        assert killed.submit(executor, int).result(SECONDS) == 0


def test_unnoticed(pipe):
    """A process that has ended is found while the pool counts it, unless the pool has closed it."""
    reader, writer = pipe
    running = Mock(sentinel=reader)
    pool = Mock(_processes={1: running})
    assert killed.unnoticed(pool) == set()
    writer.send_bytes(b"x")
    assert killed.unnoticed(pool) == {running}
    pool._processes[2] = Mock(sentinel=-1)
    assert killed.unnoticed(pool) == set()
    pool._executor_manager_thread.is_alive.return_value = False
    del pool._processes[2]
    assert killed.unnoticed(pool) == set()


def test_rest_of_a_result(pipe):
    """A pool that reads half of a result gets something that is no pickle, and ends."""
    reader, writer = pipe
    os.write(writer.fileno(), (1 << 20).to_bytes(4, "big") + bytes(99))
    errors = []

    def read():
        try:
            reader.recv()
        except pickle.UnpicklingError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    killed._pad(writer, thread)
    thread.join(SECONDS)
    assert len(errors) == 1


def test_rest_of_a_result_that_nobody_reads(pipe):
    """While the pipe is full, nothing is written that would block."""
    alive = [True] * 100 + [False]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(killed, "_LOOK", 0)
        killed._pad(pipe[1], Mock(is_alive=Mock(side_effect=alive)))
    pipe[1].close()
    killed._pad(pipe[1], Mock(is_alive=Mock(return_value=True)))


def test_a_process_without_kill(pipe):
    """A process of loky's, which can only be terminated, is."""
    process = Mock()
    process.kill.side_effect = AttributeError("'Popen' object has no attribute 'kill'")
    manager = Mock(is_alive=Mock(return_value=False))
    queue = Mock(_writer=pipe[1])
    pool = Mock(_processes={1: process}, _result_queue=queue, _executor_manager_thread=manager)
    killed.end(pool)
    process.terminate.assert_called_once_with()
