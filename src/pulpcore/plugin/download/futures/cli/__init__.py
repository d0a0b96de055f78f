"""The command line, ``pulp-futures``: downloads files through Factory and Batch.

It needs the extra ``cli`` (click and rich). Nothing else of the package imports it.
"""
