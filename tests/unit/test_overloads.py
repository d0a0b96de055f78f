"""The overloads of constructors, which only type checkers read, have the real parameters."""

import inspect
import subprocess
import sys
from typing import get_overloads

import pytest

from pulpcore.plugin.download.futures import (
    Batch,
    Download,
    FileDownload,
    FileWriter,
    FtpDownload,
    HttpDownload,
)


@pytest.mark.parametrize("cls", [Download, FileDownload, FtpDownload, HttpDownload])
def test_overloads_have_the_parameters_of_the_constructor(cls: type[Download]) -> None:
    """Each overload of a constructor takes its parameters, and differs in the writer only."""
    real = _parameters(cls.__init__)
    overloads = [_parameters(each) for each in get_overloads(cls.__init__)]
    assert len(overloads) == 2
    for overload in overloads:
        assert list(overload) == list(real)
        differing = {name for name in real if overload[name] != real[name]}
        assert differing <= {"self", "writer"}


def test_typing_extensions_is_for_type_checkers_only() -> None:
    """The package doesn't import typing_extensions, which it doesn't depend on."""
    code = (
        "import sys; sys.modules['typing_extensions'] = None; "
        "import pulpcore.plugin.download.futures.cli"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_classes_are_generic_at_run_time() -> None:
    """A program may write type arguments: of a base class, in a call, and of a batch."""

    class ToFile(HttpDownload[FileWriter]):
        """Names its writer."""

    assert ToFile("http://127.0.0.1/a", "a").clone().writer.path == "a"
    assert HttpDownload[FileWriter]("http://127.0.0.1/a", "a").clone().writer.path == "a"
    assert list(Batch[HttpDownload[FileWriter]]([])()) == []


def _parameters(function: object) -> dict[str, tuple[object, object, bool]]:
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    return {
        name: (each.annotation, each.kind, each.default is not empty)
        for name, each in signature.parameters.items()
    }
