"""Images on disk, and the data set built of them: finding, reading, the manifest, splits, TFRecord shards.

May import base.
"""
