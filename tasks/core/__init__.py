"""The library behind the stages and commands, in ten rooms.

A stage finds its library in the room of its name; `base`, `data` and `backbones` serve several.
"""
