"""Reference figures: parts of the work, done with as little code as possible."""

import hashlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import urlsplit

from benchmarks.job import File, Job
from benchmarks.peers.ours import FOUR

BLOCK = 1024 * 1024


def one_digest(job: Job) -> None:
    """Compute one digest of as many bytes, from memory."""
    _hash(job, ("sha256",))


def four_digests(job: Job) -> None:
    """Compute four digests of as many bytes, from memory, one after the other."""
    _hash(job, FOUR)


def digests_by_two(job: Job) -> None:
    """Compute four digests in two threads, one long and one short digest in each."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: _hash(job, sorted(FOUR)[number::2]), range(2)))


def _hash(job: Job, algorithms: Iterable[str]) -> None:
    block = os.urandom(BLOCK)
    for file in job.files:
        for algorithm in algorithms:
            digest = hashlib.new(algorithm)
            for _ in range(file.size // BLOCK):
                digest.update(block)
            digest.update(block[: file.size % BLOCK])
            digest.hexdigest()


def sockets(job: Job) -> None:
    """Send requests over bare sockets without writing or checking: as fast as the server is."""
    _fetch(job, lambda file, content: None)


def sockets_and_files(job: Job) -> None:
    """Send requests over bare sockets, and do the minimum with each file."""

    def keep(file: File, content: bytes) -> None:
        file.check(len(content), hashlib.sha256(content).hexdigest())
        target = f"{job.target}/{file.name}"
        descriptor = os.open(f"{target}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.write(descriptor, content)
        os.close(descriptor)
        os.replace(f"{target}.new", target)

    _fetch(job, keep)


def _fetch(job: Job, keep: Callable[[File, bytes], None]) -> None:
    parts = urlsplit(job.base)

    def fetch(files: list[File]) -> None:
        with socket.create_connection((parts.hostname, parts.port), timeout=30) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for file in files:
                sock.sendall(f"GET {file.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
                reply = b""
                while len(content := reply.partition(b"\r\n\r\n")[2]) < file.size:
                    data = sock.recv(BLOCK)
                    if not data:
                        raise ConnectionError("the server closed the connection")
                    reply += data
                keep(file, content)

    with ThreadPoolExecutor(job.threads) as pool:
        for _ in pool.map(
            fetch, [job.files[number :: job.threads] for number in range(job.threads)]
        ):
            pass


def executor(job: Job) -> None:
    """Call an empty function in a ThreadPoolExecutor with a window of 1024."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(job.threads) as pool:
        for _ in range(job.count):
            if len(waiting) == 1024:
                waiting.popleft().result()
            waiting.append(pool.submit(_nothing))
        while waiting:
            waiting.popleft().result()


def _nothing() -> None:
    pass
