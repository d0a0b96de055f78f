"""Benchmarks that compare this library with its alternatives on the same work in one run.

``tox -e bench`` runs them. docs/performance.rst says how to read the results.
"""
