"""The Python API: what every command does besides parsing and printing."""
