"""
Which release this is. pyproject.toml reads it from here.

A constant and no question to importlib.metadata, whose import costs an edge two megabytes.
"""

VERSION = "0.1.0"
