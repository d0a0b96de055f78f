"""The entry point of the command line, ``pulp-futures``.

It isn't part of the package, because it must run before the package is imported. If pulpcore is
installed, importing a module below ``pulpcore.plugin`` needs ``django.setup()`` first.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from importlib.util import find_spec

USAGE = 2
"""The exit status for wrong arguments or an incomplete installation."""

STOPPED = 130
"""The exit status after Ctrl-C: 128 plus the number of SIGINT, as in shells."""

SETTINGS = "pulpcore.app.settings"
"""The settings module of Django, unless DJANGO_SETTINGS_MODULE is set."""


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: Always, with the exit status.
    """
    _fill_closed_streams()
    try:
        missing = _prepare()
        if missing:
            # sys.stderr is None if it was closed before the program started.
            with contextlib.suppress(AttributeError, OSError):
                sys.stderr.write(f"pulp-futures: {missing}\n")
            status = USAGE
        else:
            status = import_module("pulpcore.plugin.download.futures.cli.app").run()
    except KeyboardInterrupt:
        # During the imports only: afterwards the command line has its own signal handlers.
        status = STOPPED
    sys.exit(status)


def _fill_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed.

    Otherwise the next file or socket would get descriptor 0, 1 or 2, and output to stdout or stderr
    would go into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _prepare() -> str:
    """Check the requirements of the command line, and set up Django if pulpcore is installed.

    Returns:
        One line that says what is missing and how to install it; '' if nothing is missing.
    """
    absent = [name for name in ("click", "rich") if find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} can't be found: run pip install {' '.join(absent)}"
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
    # The messages of other exceptions may contain values of settings, and so secrets.
    if isinstance(error, ImportError | OSError) or name == "ImproperlyConfigured":
        return " ".join(str(error).split()) or name
    return name


if __name__ == "__main__":
    main()
