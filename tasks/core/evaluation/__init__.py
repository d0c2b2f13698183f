"""How good a model is, and whether that is enough: metrics, calibration, slices, robustness, gates.

May import base and data.
"""
