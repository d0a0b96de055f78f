"""This library beside what a user would pick instead, doing the same work in one run.

``tox -e bench`` runs it; docs/performance.rst tells how to read what comes out.
"""
