"""The classifier, and how it is fitted: data set, augmentation, feature cache, checkpoints, devices.

May import base and backbones.
"""
