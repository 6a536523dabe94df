"""Annotation formats that data sets are written in, one file each; the folder is the registry.

The name of a file is the name of its format, and the first line of its docstring describes it. A file whose name begins
with an underscore is a part of others. Each format has one function::

    write(splits: Mapping[str, DetectionData], folder: Path, *, link: bool) -> list[Finding]

It writes the splits into a folder that does not exist or is empty, whole or not at all. Images are hard links where
``link`` is set and the file system allows it, else copies. It returns what the format cannot hold.
"""
