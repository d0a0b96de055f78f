"""Tests of programs that leave a batch open, or whose main thread ends before a batch."""

import subprocess
import sys
import time

import pytest
from processes import SOURCE

PROLOGUE = """
import sys, threading, time
sys.path[:0] = {path!r}
from pulpcore.plugin.download.futures import Batch, BufferWriter, Download, Writer
from pulpcore.plugin.download.futures.waiting.cancellation import current

class Sleeping(Download):
    seconds = 0.05
    def __init__(self, n):
        super().__init__(f"x:{{n}}", None)
    def _send(self):
        current().wait(self.seconds)

def downloads(seconds, size=1000):
    Sleeping.seconds = seconds
    return map(Sleeping, range(size))

"""

LEFT_OPEN = {
    "by the main thread": "batch = Batch(downloads(60)); batch().__next__",
    "by the main thread, half way": """
batch = Batch(downloads(0.01))
next(batch())
Sleeping.seconds = 60
next(batch())
""",
    "and dropped": """
class Short(Sleeping):
    def _send(self):
        current().wait(60 if int(self.url[2:]) > 1 else 0)

def start():
    batch = Batch(map(Short, range(1000)))
    next(batch())
    next(batch())
start()
""",
    "on a pool of processes": """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

class Last(Sleeping):
    def _send(self):
        current().wait(0 if self.url == "x:0" else 60)

executor = ProcessPoolExecutor(1, mp_context=get_context("fork"))
batch = Batch(map(Last, range(9)), concurrent=1, backlog=2, executor=executor)
next(batch())
""",
    "by a thread that has ended": """
def consume():
    global batch
    batch = Batch(downloads(0))
    next(batch())
    Sleeping.seconds = 60
thread = threading.Thread(target=consume)
thread.start()
thread.join()
""",
}


def run(program):
    """Run a program. Return its output and how long it took."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE.format(path=[str(SOURCE), *sys.path]) + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.strip(), time.monotonic() - began


@pytest.mark.parametrize("how", LEFT_OPEN)
def test_left_open(how):
    """A batch that was left open doesn't delay the exit of the program until its download ends."""
    _, seconds = run(LEFT_OPEN[how])
    assert seconds < 30


def test_nothing_partial_is_left(tmp_path):
    """A batch left open at the exit leaves no temporary file of its running downloads."""
    run(f"""
from pulpcore.plugin.download.futures import FileWriter
begun = threading.Event()
class Begun(Download):
    def _send(self):
        self._write(b"a")
        begun.set()
        current().wait(60)
batch = Batch([Begun("x:", FileWriter({str(tmp_path / "target")!r}))], concurrent=1)
consumer = threading.Thread(target=lambda: next(batch()), daemon=True)
consumer.start()
begun.wait(20)
""")
    assert list(tmp_path.iterdir()) == []


def test_outlives_the_main_thread():
    """A batch in another thread continues, and starts threads, after the main thread has ended."""
    output, _ = run("""
def work():
    threading.main_thread().join()
    with Batch(downloads(0.001, 30), concurrent=4, backlog=4) as batch:
        print(sum(plan.error is None for plan in batch()))
threading.Thread(target=work).start()
""")
    assert output == "30"
