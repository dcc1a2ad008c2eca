"""instil: labelled rows in, a proven instruct model out."""

__version__ = "0.1.0"
