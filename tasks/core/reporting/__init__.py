"""What people look at: charts, thumbnails, HTML templates, Markdown.

May import base, data and evaluation.
"""
