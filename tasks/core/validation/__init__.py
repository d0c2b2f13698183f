"""Is the data sound? The scan, image quality, near-duplicates, and the checks with their expectations.

May import base and data.
"""
