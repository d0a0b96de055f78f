"""Waiting: cancellation, a timer, a pool of threads, and shared state without locks.

It knows the standard library only.
"""
