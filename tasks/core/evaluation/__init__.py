"""How good a model is, and whether that is enough: metrics, intervals, calibration, slices, robustness.

May import base and data.
"""
