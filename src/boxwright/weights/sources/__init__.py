"""Kinds of files with other projects' models, one file each; the folder is the registry."""
