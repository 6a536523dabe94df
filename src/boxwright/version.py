"""The version of Boxwright."""

__version__ = "0.2.0"
