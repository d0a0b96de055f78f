"""Importing the package only defines names and has no side effects."""

import json
import subprocess
import sys

# The program imports other packages first, because their side effects don't count.
PROGRAM = """
import sys, json
NAME = 'pulpcore.plugin.download.futures'
import importlib, logging, os, pkgutil, signal, socket, threading, warnings
import importlib.metadata, click, rich.console, rich.progress, rich.filesize, rich.table, rich.text
import certifi, concurrent.futures, email.utils, fcntl, ftplib, hashlib, http.server, netrc
import requests, urllib3.util.ssl_, contextvars, zlib, secrets, dataclasses

def state():
    root = logging.getLogger()
    signals = {int(number): repr(signal.getsignal(number)) for number in signal.valid_signals()}
    loggers = {
        name: (logger.level, *logger.handlers, *logger.filters, logger.propagate, logger.disabled)
        for name, logger in {'': root, **logging.root.manager.loggerDict}.items()
        if isinstance(logger, logging.Logger)
        and (logger.level or logger.handlers or logger.filters or not logger.propagate)
    }
    return {
        'threads': threading.enumerate(),
        'environment': dict(os.environ),
        'folder': os.getcwd(),
        'files': sorted(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else [],
        'warnings': list(warnings.filters),
        'loggers': loggers,
        'time-out': socket.getdefaulttimeout(),
        'signals': signals,
        'hooks': [sys.excepthook, threading.excepthook, sys.gettrace(), sys.getprofile()],
        'recursion': [sys.getrecursionlimit(), sys.getswitchinterval()],
    }

done = []
QUIET = ('import', 'exec', 'compile', 'marshal.', 'object.', 'code.', 'sys._getframe', 'builtins.')

def audit(event, arguments):
    if not watching or event.startswith(QUIET):
        return
    if event == 'open' and str(arguments[0]).endswith(('.py', '.pyc')):
        return
    if event in ('os.listdir', 'os.scandir'):
        # Python's import system lists folders to find modules.
        return
    done.append(f'{event} {arguments!r}')

# Python 3.13 renamed this function. There is no audit event for it in Python 3.11.
OLD, NEW = '_start_new_thread', '_start_joinable_thread'
STARTER = NEW if hasattr(threading, NEW) else OLD

def start(*arguments, **options):
    done.append(f'thread {arguments!r}')
    return begin(*arguments, **options)

begin = getattr(threading, STARTER)
setattr(threading, STARTER, start)
watching = False
sys.addaudithook(audit)
import pulpcore.plugin.download
before = state()
watching = True
import pulp_futures
package = importlib.import_module(NAME)
modules = [name for _, name, _ in pkgutil.walk_packages(package.__path__, NAME + '.')]
modules.remove(NAME + '.pulp')
modules.remove(NAME + '.telemetry')
for name in modules:
    importlib.import_module(name)
watching = False
after = state()
print(json.dumps({
    'changed': [f'{key}: {after[key]}' for key in before if before[key] != after[key]],
    'done': done,
    'modules': len(modules),
}, default=repr))
"""


def test_import_does_nothing() -> None:
    """The import starts no thread or process, opens no file or socket, and changes no global state.

    The global state is, for example, the environment, logging, warnings and signal handlers.
    """
    run = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stderr
    found = json.loads(run.stdout)
    assert found["modules"] > 30
    assert (found["changed"], found["done"]) == ([], [])
