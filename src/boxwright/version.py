"""The version of Boxwright."""

__version__ = "0.3.0"
