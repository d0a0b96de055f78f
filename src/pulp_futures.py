"""The entry of the command line, ``pulp-futures``.

It lies outside of the package because it runs before the package can be imported: beside the real
pulpcore, importing anything below ``pulpcore.plugin`` needs ``django.setup()`` first.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from importlib.util import find_spec

USAGE = 2
"""The exit status when the program can't run as it was called, or where it is installed."""

STOPPED = 130
"""The exit status after Ctrl-C, as shells count: 128 and the number of the signal."""

SETTINGS = "pulpcore.app.settings"
"""Django's settings, unless DJANGO_SETTINGS_MODULE names others."""


def main() -> None:
    """Run the command line, and exit with its status."""
    _fill_closed_streams()
    try:
        missing = _prepare()
        if missing:
            # stderr is None where it is closed.
            with contextlib.suppress(AttributeError, OSError):
                sys.stderr.write(f"pulp-futures: {missing}\n")
            status = USAGE
        else:
            status = import_module("pulpcore.plugin.download.futures.cli.app").run()
    except KeyboardInterrupt:
        # Only while modules are imported: the command line has signal handlers of its own.
        status = STOPPED
    sys.exit(status)


def _fill_closed_streams() -> None:
    """Open /dev/null in place of each standard stream that is closed.

    Otherwise the next file or socket gets its number, and with it all that is written to stdout or
    stderr by that number.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _prepare() -> str:
    """Make the package importable.

    Returns:
        What is missing and how to get it, in one line; '' if nothing is missing.
    """
    absent = [name for name in ("click", "rich") if find_spec(name) is None]
    if absent:
        return (
            f"{' and '.join(absent)} can't be found: "
            "install what the command line needs with pip install 'pulpcore-futures[cli]'"
        )
    if find_spec("pulpcore.app") is None:
        return ""
    settings = os.environ.setdefault("DJANGO_SETTINGS_MODULE", SETTINGS)
    try:
        import_module("django").setup()
    except Exception as error:
        return (
            f"pulpcore is installed here, but its settings {settings} can't be loaded "
            f"({_brief(error)}): set DJANGO_SETTINGS_MODULE and PULP_SETTINGS, "
            "or install pulpcore-futures into an environment of its own"
        )
    return ""


def _brief(error: Exception) -> str:
    name = type(error).__name__
    # Other exceptions may quote the values of settings, secrets included.
    if isinstance(error, ImportError | OSError) or name == "ImproperlyConfigured":
        return " ".join(str(error).split()) or name
    return name


if __name__ == "__main__":
    main()
