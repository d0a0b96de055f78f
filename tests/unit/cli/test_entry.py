"""Tests of the program's entry point, which runs before the package can be imported."""

import os
import subprocess
import sys
import types

import pytest

import pulp_futures
from pulpcore.plugin.download.futures.cli import app


def finder(monkeypatch, **found):
    """Set which modules can be found."""
    real = pulp_futures.find_spec
    monkeypatch.setattr(
        pulp_futures, "find_spec", lambda name: found.get(name.replace(".", "_"), real(name))
    )


def status_of_main():
    """Run the entry point and return its exit status."""
    with pytest.raises(SystemExit) as caught:
        pulp_futures.main()
    return caught.value.code


@pytest.fixture
def django(monkeypatch):
    """Provide fake modules django and pulpcore. Django's setup can be made to fail."""
    module = types.ModuleType("django")
    module.settings = []
    module.error = None

    def setup():
        module.settings.append(os.environ["DJANGO_SETTINGS_MODULE"])
        if module.error:
            raise module.error

    module.setup = setup
    monkeypatch.setitem(sys.modules, "django", module)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    finder(monkeypatch, pulpcore_app=object())
    return module


@pytest.fixture
def ran(monkeypatch):
    """Replace the command line by a function that counts its calls and exits with status 7."""
    calls = []
    monkeypatch.setattr(app, "run", lambda: calls.append(1) or 7)
    return calls


def test_alone(ran):
    """Without pulpcore the entry point starts the command line and returns its exit status."""
    assert status_of_main() == 7
    assert ran == [1]


@pytest.mark.parametrize("absent", [["click"], ["rich"], ["click", "rich"]])
def test_extra_missing(monkeypatch, capsys, ran, absent):
    """If the `cli` extra isn't installed, one line says how to install it."""
    finder(monkeypatch, **dict.fromkeys(absent))
    assert status_of_main() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("pulp-futures: " + " and ".join(absent))
    assert error.endswith(f"pip install {' '.join(absent)}\n")
    assert ran == []


def test_beside_pulpcore(monkeypatch, django, ran):
    """If pulpcore is installed, the entry point first sets up Django with pulpcore's settings."""
    assert status_of_main() == 7
    assert django.settings == ["pulpcore.app.settings"]
    assert ran == [1]


def test_settings_given(monkeypatch, django, ran):
    """The entry point keeps the Django settings module named by the environment."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "my.settings")
    assert status_of_main() == 7
    assert django.settings == ["my.settings"]


class ImproperlyConfigured(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ImproperlyConfigured("no\nkey"), "(no key)"),
        (ImportError("No module named 'x'"), "(No module named 'x')"),
        (OSError(), "(OSError)"),
        (ValueError("SECRET_KEY is too short: hush"), "(ValueError)"),
    ],
)
def test_settings_missing(capsys, django, ran, error, shown):
    """If Django's settings can't be loaded, one line says so and quotes no value of a setting."""
    django.error = error
    assert status_of_main() == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"pulpcore.app.settings can't be loaded {shown}: set DJANGO_SETTINGS_MODULE" in told
    assert "hush" not in told
    assert ran == []


def test_interrupted(monkeypatch, django, ran):
    """Ctrl-C during the imports ends the program without a traceback."""
    django.error = KeyboardInterrupt()
    assert status_of_main() == 130
    assert ran == []


def test_import_nothing():
    """Importing the entry point imports no module of pulpcore."""
    code = "import sys, pulp_futures; sys.exit(any(m.startswith('pulpcore') for m in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
