"""Union of the assignments of several layers: one set of matched queries for all of them."""

from __future__ import annotations

from typing import NamedTuple

import torch

from boxwright.queries.matching import Matches


class Assignment(NamedTuple):
    """Matches of each layer, and of the encoder, by itself, and their union."""

    of_layers: Matches
    united: Matches


def unite_matches(matches: Matches) -> Matches:
    """Unite the matches of all layers: every query that any layer matched, with the object that it got most often.

    Of several objects that a query got equally often, it keeps the first one. An object may have several queries.

    Args:
        matches: of all layers.

    Returns:
        matches of one layer, in the order of images and queries.

    Source: Peng et al., D-FINE, ICLR 2025, section 4.2. Checked against ``_get_go_indices`` of Peterande/D-FINE
    4a1f73a, which leaves objects that a query got equally often to a sort that is not stable.
    """
    pairs = torch.stack((matches.image, matches.query, matches.object))
    pairs, counts = pairs.unique(dim=1, return_counts=True)  # sorted by image, query, object
    # By image and query, the most frequent object first: two stable sorts, the second over what counts more.
    order = counts.argsort(descending=True, stable=True)
    image, query, _ = pairs[:, order]
    group = image * (matches.query.max() + 1 if matches.query.numel() else 1) + query
    order = order[group.argsort(stable=True)]
    image, query, matched = pairs[:, order]
    is_first = torch.ones_like(query, dtype=torch.bool)
    is_first[1:] = (image[1:] != image[:-1]) | (query[1:] != query[:-1])
    image, query, matched = image[is_first], query[is_first], matched[is_first]
    return Matches(torch.zeros_like(image), image, query, matched)
