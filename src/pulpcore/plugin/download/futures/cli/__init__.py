"""The command line, ``pulp-futures``: downloads for a person, through Factory and Batch.

It needs the extra ``cli`` (click and rich), and nothing else of the package imports it.
"""
