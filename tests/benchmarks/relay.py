"""A relay that adds a round-trip time to a server on loopback.

A C program, so that it takes little of the processor that the peers are measured on. Without a C
compiler it is one in Python.

Usage of the one in Python: ``python -m benchmarks.relay PORT MILLISECONDS``
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.server import Server, environment

SOURCE = Path(__file__).with_suffix(".c")
BLOCK = 64 * 1024


@contextlib.contextmanager
def relayed(server: Server, round_trip: float, folder: Path) -> Iterator[Server]:
    """Start a relay in front of a server.

    Args:
        server: The server.
        round_trip: The round-trip time to add (seconds).
        folder: A folder for the program.
    """
    program, language = _program(folder)
    port = server.base.rpartition(":")[2]
    with subprocess.Popen(
        [*program, port, f"{round_trip * 1000:g}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            own = int(process.stdout.readline())
            name = f"{server.name}, behind a relay in {language} of {round_trip * 1000:g} ms"
            yield Server(f"http://127.0.0.1:{own}", name, server.pid)
        finally:
            process.kill()


def _program(folder: Path) -> tuple[Sequence[str], str]:
    """Return the command of a relay, and the language that it is written in."""
    compiler, path = shutil.which("cc"), folder / "relay"
    if not path.exists() and compiler is not None:
        subprocess.run([compiler, "-O2", "-o", str(path), str(SOURCE)], check=True)
    if path.exists():
        return [str(path)], "C"
    return [sys.executable, "-m", "benchmarks.relay"], "Python (no C compiler)"


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, not_before: float
) -> None:
    """Pass on what one side sends, later."""
    loop = asyncio.get_running_loop()
    late: deque[tuple[float, bytes]] = deque()
    news = asyncio.Event()

    async def read() -> None:
        data = b"-"
        while data:
            with contextlib.suppress(ConnectionError):
                data = await reader.read(BLOCK)
            late.append((max(loop.time() + delay, not_before), data))
            news.set()

    task = loop.create_task(read())
    with contextlib.suppress(ConnectionError):
        while True:
            while not late:
                news.clear()
                await news.wait()
            due, data = late.popleft()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    await task


async def _serve(port: int, round_trip: float) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The kernel accepts at once; a client far away could send one round trip later.
        first = asyncio.get_running_loop().time() + 1.5 * round_trip
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_forward(reader, far_writer, round_trip / 2, first))
                tasks.create_task(_forward(far_reader, writer, round_trip / 2, 0))
        finally:
            far_writer.close()
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - for who started it
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
