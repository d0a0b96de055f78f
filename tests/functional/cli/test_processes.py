"""Tests of the option `--processes`."""

import json

import pytest
from click.testing import CliRunner

from pulpcore.plugin.download.futures.cli import app


def call(*arguments):
    """Run the program in this process."""
    return CliRunner().invoke(app.cli, [str(argument) for argument in arguments])


def test_files(file_server, tmp_path):
    """With --processes, worker processes fetch the files, and --json reports each."""
    files = {f"/{number}": b"x" * (number + 1) for number in range(20)}
    with file_server(files) as server:
        urls = [server.url(f"/{number}") for number in range(21)]
        result = call("get", *urls, "-P", tmp_path, "--processes", 2, "--json", "--quiet")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert sorted(each["status"] for each in found) == ["failed", *["ok"] * 20]
    assert [each["http_status"] for each in found if each["status"] == "failed"] == [404]
    assert {each["size"] for each in found if each["status"] == "ok"} == set(range(1, 21))
    assert all(each["sha256"] for each in found if each["status"] == "ok")
    for path, content in files.items():
        assert (tmp_path / path[1:]).read_bytes() == content


@pytest.mark.parametrize("number", ["0", "x"])
def test_no_number(number):
    """A number of processes below 1 is refused."""
    assert call("get", "http://127.0.0.1/a", "--processes", number).exit_code == 2


def test_not_to_stdout(file_server):
    """Other processes can't write to stdout, which is refused beforehand."""
    result = call("get", "http://127.0.0.1/a", "-o", "-", "--processes", "2")
    assert result.exit_code == 2
    assert "--processes: other processes can't write to stdout." in result.output
