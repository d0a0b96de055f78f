"""Loopback servers for the functional tests.

Each is a context manager that listens on 127.0.0.1 at a port of the system's choice, and records
the requests. Import from the submodule: `raw`, `files`, `tls`, `proxy`, `ftp`.
"""
