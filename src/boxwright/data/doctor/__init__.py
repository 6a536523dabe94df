"""Checks of a data set that need no model: pure functions from what was read to findings, one file for each subject.

``boxwright.workflows.check`` runs them over the splits of a data set; ``examine_split`` and ``examine_splits`` run all
of those for one split, and for several together.
"""
