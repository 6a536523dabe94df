"""Annotation formats, one file each; the folder is the registry.

The name of a file is the name of its format, and the first line of its docstring describes it. A file whose name begins
with an underscore is a part of another one. ``boxwright.data.open.Reader`` declares the functions of a format.
"""
