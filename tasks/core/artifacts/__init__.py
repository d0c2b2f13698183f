"""The exported files: writing each format, running it in a process of its own, comparing it with the model.

May import base, data and backbones.
"""
