"""The passport of weights in the layout of another project, where that has room for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from boxwright.passport import Passport

KEY = "boxwright"
"""Name of its entry in the header of a safetensors file, or beside the weights in one of torch's own format."""


def passport_header(passport: Passport | None) -> dict[str, str]:
    """Make the entry of a header, which holds texts; empty where there is no passport."""
    return {} if passport is None else {KEY: json.dumps(passport.to_dict())}


def take_passport(beside: Mapping[str, Any]) -> tuple[Passport | None, list[str]]:
    """Read the passport among the entries of a header, or beside the weights; None where there is none.

    Returns:
        The passport, and a note where there is one that cannot be read: the weights can be.
    """
    text = beside.get(KEY)
    if not isinstance(text, str):
        return None, []
    try:
        return Passport.from_dict(json.loads(text)), []
    except (ValueError, TypeError, RecursionError):
        return None, ["the passport that Boxwright wrote into the file is damaged, and left out"]
