"""Waiting: cancellation, a timer, and locks that survive a fork.

It knows the standard library only.
"""
