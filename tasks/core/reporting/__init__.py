"""What people look at: charts, thumbnails, HTML templates, Markdown.

May import base and data.
"""
