"""Executors for tests: one that runs chunks in threads of this process, and faults on demand."""

import os
import pickle
import signal
import threading
import time
from concurrent.futures import Executor, Future
from multiprocessing import connection

from pulpcore.plugin.download.futures import Download
from pulpcore.plugin.download.futures.engine.attempt import record_of
from pulpcore.plugin.download.futures.engine.run import Wait
from pulpcore.plugin.download.futures.pool import worker


class Inline(Executor):
    """Runs each function in a thread of this process, with pickled arguments and result.

    Attributes:
        calls: The chunks, as `Chunk`, in the order submitted.
        faults: From the number of a call, from 0, to an exception that its future raises instead.
        hook: Called with the number of a call before it runs.
    """

    def __init__(self, workers=2):
        self._max_workers = workers
        self.calls = []
        self.faults = {}
        self.hook = lambda number: None
        self._slots = threading.Semaphore(workers)
        self._threads = []

    def submit(self, function, /, *arguments):
        """Run a function in a thread, of which `workers` run at a time."""
        if isinstance(self.faults.get("submit"), BaseException):
            raise self.faults["submit"]
        number = len(self.calls)
        self.calls.append(worker.Chunk(*arguments))
        data, future = pickle.dumps((function, arguments)), Future()
        thread = threading.Thread(target=self._run, args=(number, data, future))
        self._threads.append(thread)
        thread.start()
        return future

    def _run(self, number, data, future):
        with self._slots:
            if not future.set_running_or_notify_cancel():
                return
            self.hook(number)
            fault = self.faults.get(number)
            if fault is not None:
                future.set_exception(fault)
                return
            function, arguments = pickle.loads(data)
            future.set_result(pickle.loads(pickle.dumps(function(*arguments))))

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Wait for all threads, and close what the worker keeps."""
        for thread in self._threads:
            thread.join()
        worker.close()


class Remote(Download):
    """A download whose behaviour in a worker depends on its URL: `test://host/verb/...`."""

    def _send(self):
        verb, *rest = self.url.split("/", 3)[3].split("/")
        if verb == "bytes":
            self._write(b"x" * int(rest[0]))
        elif verb == "raise":
            raise {"odd": Odd(1, 2), "plain": KeyError("k")}[rest[0]]
        elif verb in {"block", "wait"}:
            if verb == "wait":
                record_of(self).show(Wait("a test", time.monotonic() + float(rest[0])))
            while True:
                self._write(b"x")
                threading.Event().wait(0.01)
        elif verb == "pid":
            self._write(str(os.getpid()).encode())
        elif verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == "half":
            die_in_reply()


def die_in_reply():
    """Have this process be killed when it has written half of its next message."""
    connection.Connection._send = _send_half_and_die


def _send_half_and_die(pipe, buffer, write=os.write):
    """Write half of a message to a pipe, and kill this process."""
    write(pipe.fileno(), bytes(buffer)[: len(buffer) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


class Odd(Exception):
    """An exception that pickles, and can't be unpickled."""

    def __init__(self, one, two):
        super().__init__(f"odd one {one}")
