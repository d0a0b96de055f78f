"""Programs that a user would call from a shell."""

import hashlib
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.job import File, Job


def curl(job: Job) -> None:
    """Do a job with ``curl --parallel``, followed by ``sha256sum`` for all files."""
    with tempfile.TemporaryDirectory() as folder:
        _curl(job, Path(folder))
        sums = Path(folder, "sums")
        sums.write_text("".join(f"{f.sha256}  {job.target / f.name}\n" for f in job.files))
        _call("sha256sum", "--check", "--status", "--strict", str(sums))
    _check_sizes(job)


def curl_and_hashlib(job: Job) -> None:
    """Do a job with curl, followed by hashlib in threads, which is faster than ``sha256sum``."""

    def check(file: File) -> None:
        with (job.target / file.name).open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            file.check(content.tell(), digest)

    with tempfile.TemporaryDirectory() as folder:
        _curl(job, Path(folder))
    with ThreadPoolExecutor(job.threads) as pool:
        for _ in pool.map(check, job.files):
            pass


def aria2(job: Job) -> None:
    """Do a job with aria2, which checks the digests itself."""
    with tempfile.TemporaryDirectory() as folder:
        entries = Path(folder, "entries")
        entries.write_text(
            "".join(
                f"{job.url(file)}\n out={file.name}\n checksum=sha-256={file.sha256}\n"
                for file in job.files
            )
        )
        _call(
            "aria2c",
            "--no-conf",
            "--quiet",
            f"--input-file={entries}",
            f"--dir={job.target}",
            f"--max-concurrent-downloads={job.threads}",
            "--max-connection-per-server=1",
            "--split=1",
            "--file-allocation=none",
            "--enable-http-keep-alive=true",
        )
    _check_sizes(job)


def _curl(job: Job, folder: Path) -> None:
    config = folder / "config"
    config.write_text(
        "".join(
            f'url = "{job.url(file)}"\noutput = "{job.target / file.name}"\n' for file in job.files
        )
    )
    _call(
        "curl",
        "--disable",
        "--parallel",
        "--parallel-max",
        str(job.threads),
        "--no-progress-meter",
        "--fail",
        "--config",
        str(config),
    )


def _check_sizes(job: Job) -> None:
    for file in job.files:
        size = (job.target / file.name).stat().st_size
        if size != file.size:
            raise ValueError(f"{file.path}: wrong size: {size} bytes")


def _call(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
