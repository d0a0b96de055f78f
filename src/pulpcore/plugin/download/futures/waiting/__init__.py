"""Cancellation tokens, a timer, a thread pool, and shared state without locks.

This package imports only the standard library.
"""
