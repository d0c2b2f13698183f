"""Pretrained backbones: the catalogue, the download, those built in; and how TensorFlow is set up.

May import base.
"""
