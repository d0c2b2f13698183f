"""A shipped model on new images: predictions, explanations, batch scoring, drift.

May import base, data, validation, backbones, evaluation and artifacts.
"""
