"""Versions and stages of a model: git tags, evidence, champion against challenger, model cards.

May import every room but training, and none imports it.
"""
