"""Auxiliary heads: in training only, heads beside the decoder whose positives become further queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.contracts import CandidateHead, Head, MatchCountingHead, MatchWeighingHead
from boxwright.layers.deformable_transformer import encode_box_sine, level_projection, reset_transformer
from boxwright.layers.predictions import cast_to_weights
from boxwright.ops.box_matching import BACKGROUND
from boxwright.ops.boxes import inverse_sigmoid, xyxy_to_cxcywh
from boxwright.ops.image_draws import Purpose, image_generator
from boxwright.queries.criterion import SetCriterion, layer_suffixes, name_terms
from boxwright.queries.matching import Matches, NormalizedTargets
from boxwright.queries.options import SupervisionOptions
from boxwright.structures import Features, Level, LossTotals, Spec, Targets, coarser_name, main_levels


class QueryStart(NamedTuple):
    """Queries as a decoder begins with them.

    ``reference`` are center boxes relative to the image inside its padding. ``positions`` is None where the decoder
    encodes references itself. ``blocked`` is True where a query (row) must not attend to another (column), of each
    image and attention head; None where all may.
    """

    content: Float[Tensor, "b q d"]
    positions: Float[Tensor, "b q d"] | None
    reference: Float[Tensor, "b q 4"]
    blocked: Bool[Tensor, "bm q q"] | None


class ChosenCandidates(NamedTuple):
    """Indices of candidates that become queries, and the object of each within its image, or ``BACKGROUND``.

    ``valid`` is False where an image has fewer than others.
    """

    indices: Int[Tensor, "b q"]
    objects: Int[Tensor, "b q"]
    valid: Bool[Tensor, "b q"]


class AuxiliaryGroup(NamedTuple):
    """Output of an auxiliary head, its candidates that became queries, and what decoder layers predict from them."""

    output: Any
    chosen: ChosenCandidates
    logits: Float[Tensor, "l b q k"]
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"]


Decode = Callable[[QueryStart], tuple[Float[Tensor, "l b q k"], Float[Tensor, "l b q 4"]]]
"""Decoding of queries to the logits and boxes of every layer."""


class AuxiliaryHeads(nn.Module):
    """Dense and two-stage heads beside a decoder of queries, each of which gives the decoder a group of queries.

    They see the levels that the decoder sees, and a coarser one. What they are trained on, boxes with their objects, is
    known: queries that begin there need no matching. Nothing of it runs without targets.

    Args:
        in_spec: the levels that come in, fine to coarse.
        hidden_dim: width of the decoder's queries.
        num_heads: of the decoder's self-attention.
        options: names of the heads, weight of their losses, and how many queries each gives.
        with_positions: make positions of queries too, for decoders that do not encode references themselves.

    Source: Zong et al., Co-DETR, ICCV 2023, section 3.3. Checked against CoDeformDETRHead of Sense-X/Co-DETR 2665352:
    queries, predictions, every loss term, gradients. Differs in queries from background, which fill up every image to
    the least number, as if it was alone in the batch, where theirs fill up to the fullest image; in losses of queries
    that are averages over images; and in what tells the heads' queries apart, one number of each in their code, which
    calls that a mistake, and a vector here.
    """

    def __init__(
        self, in_spec: Spec, hidden_dim: int, num_heads: int, options: SupervisionOptions, *, with_positions: bool
    ) -> None:
        super().__init__()
        self.options, self.hidden_dim, self.num_heads = options, hidden_dim, num_heads
        self.with_positions = with_positions
        spec = main_levels(in_spec)
        self.coarsest = list(spec)[-1]
        self.added = coarser_name(self.coarsest)
        channels, stride = spec[self.coarsest].channels, spec[self.coarsest].stride
        self.spec: Spec = {**spec, self.added: Level(channels, 2 * stride)}
        self.downsample = level_projection(channels, channels, kernel_size=3, stride=2)
        self.heads, self.starts = nn.ModuleDict(), nn.ModuleDict()

    def add(self, heads: Mapping[str, nn.Module]) -> None:
        """Add heads that were built for ``spec``, by the names that their loss terms have.

        Raises:
            ValueError: a head has no candidates.
        """
        for name, head in heads.items():
            if not isinstance(head, CandidateHead):
                raise ValueError(f"an auxiliary head is a dense or a two-stage one, which {name} is not")
            self.heads[name] = head
            self.starts[name] = CandidateStart(head.candidate_channels, self.hidden_dim, self.with_positions)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None,
        targets: Sequence[Targets],
        valid_sizes: Float[Tensor, "#b 2"] | None,
        decode: Decode,
    ) -> tuple[AuxiliaryGroup, ...]:
        """Run every head, and decode the queries that begin at its candidates.

        Raises:
            ValueError: the heads were not built.
        """
        if not self.heads:
            names = ", ".join(self.options.auxiliary)
            raise ValueError(f"the auxiliary heads ({names}) are not there: boxwright.build builds them, or give them")
        levels = {name: features[name] for name in self.spec if name != self.added}
        levels[self.added] = self.downsample(levels[self.coarsest])
        sizes = targets[0].boxes.new_tensor([(w, h, w, h) for h, w in (target.size for target in targets)])
        groups = []
        for name, module in self.heads.items():
            head = cast(Head, module)
            output = head(levels, padding_mask, targets, valid_sizes)
            candidates = cast(CandidateHead, module).list_candidates(output, targets)
            chosen = choose_candidates(candidates.objects, targets, self.options.auxiliary_queries)
            boxes = candidates.boxes.gather(1, chosen.indices[..., None].expand(-1, -1, 4))
            reference = xyxy_to_cxcywh(boxes / sizes[:, None]).detach()
            vectors = cast(CandidateHead, module).candidate_features(output, levels, chosen.indices)
            content, positions = self.starts[name](reference, vectors)
            start = QueryStart(content, positions, reference, block_filled(chosen.valid, self.num_heads))
            groups.append(AuxiliaryGroup(output, chosen, *decode(start)))
        return tuple(groups)

    def losses(
        self,
        groups: Sequence[AuxiliaryGroup],
        targets: Sequence[Targets],
        normalized: Sequence[NormalizedTargets],
        totals: LossTotals | None,
        criterion: SetCriterion,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted loss terms of every head, and of every decoder layer for its queries.

        Args:
            groups: of these images.
            targets: one per image.
            normalized: the same.
            totals: of the whole optimizer step, with ``auxiliary``; of these targets where None.
            criterion: of the decoder's predictions.
        """
        terms: dict[str, Tensor] = {}
        images = float(len(targets)) if totals is None else totals.images_per_process
        for i, ((name, head), group) in enumerate(zip(self.heads.items(), groups, strict=True)):
            own = None if totals is None else totals.of_auxiliary(i)
            losses = cast(Head, head).loss(group.output, targets, own)
            terms |= {f"{name}_{term}": self.options.auxiliary_weight * loss for term, loss in losses.items()}
            layers = [f"_{name}{suffix}" for suffix in layer_suffixes(len(group.logits))]
            terms |= name_terms(compute_query_losses(group, normalized, images, criterion), layers)
        return terms

    def count_matches(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> tuple[float, ...]:
        """Count the matches of each head, and add up their weights, one after the other; 0 where it divides by neither.

        Args:
            targets: one per image.
            input_size: (height, width) of the network input.
        """
        counts: list[float] = []
        for head in self.heads.values():
            counts.append(head.count_matches(targets, input_size) if isinstance(head, MatchCountingHead) else 0)
            counts.append(head.weigh_matches(targets, input_size) if isinstance(head, MatchWeighingHead) else 0)
        return tuple(map(float, counts))


class CandidateStart(nn.Module):
    """Contents of queries from their boxes and from features there, and by choice their positions.

    Args:
        channels: of the features.
        hidden_dim: width of the queries.
        with_positions: make positions too.
    """

    def __init__(self, channels: int, hidden_dim: int, with_positions: bool) -> None:
        super().__init__()
        width = (2 if with_positions else 1) * hidden_dim
        self.boxes = nn.Sequential(nn.Linear(2 * hidden_dim, width), nn.LayerNorm(width))
        self.features = nn.Sequential(nn.Linear(channels, hidden_dim), nn.LayerNorm(hidden_dim))
        reset_transformer(self)
        self.position: nn.Parameter | None = None
        if with_positions:
            self.position = nn.Parameter(torch.empty(hidden_dim))
            nn.init.normal_(self.position)

    def forward(
        self, reference: Float[Tensor, "b q 4"], features: Float[Tensor, "b q c"]
    ) -> tuple[Float[Tensor, "b q d"], Float[Tensor, "b q d"] | None]:
        content = self.features(features)
        # Boxes may reach beyond the image, and these coordinates not.
        encoded = encode_box_sine(inverse_sigmoid(reference).sigmoid(), content.shape[-1] // 2)
        of_boxes: Tensor = self.boxes(cast_to_weights(encoded, self.boxes))
        if self.position is None:
            return of_boxes + content, None
        positions, of_boxes = of_boxes.chunk(2, -1)
        return of_boxes + content, positions + self.position


@torch.no_grad()
def choose_candidates(
    objects: Int[Tensor, "b n"], targets: Sequence[Targets], limits: tuple[int, int]
) -> ChosenCandidates:
    """Choose candidates that become queries: those with an object, at random where there are too many.

    Where they are too few, candidates of background come beside them, at random.

    Args:
        objects: of each candidate within its image, ``BACKGROUND`` or ``IGNORED``.
        targets: one per image.
        limits: least and largest number of queries of an image.
    """
    least, most = limits
    indices = []
    for matched, target in zip(objects, targets, strict=True):
        seed, device = target.seed, matched.device
        generator = None if seed is None else image_generator(seed, Purpose.AUXILIARY, device)
        (positive,), (negative,) = torch.where(matched >= 0), torch.where(matched == BACKGROUND)
        if len(positive) > most:
            positive = positive[torch.randperm(len(positive), generator=generator, device=device)[:most]]
        fill = max(0, least - len(positive))
        filling = negative[torch.randperm(len(negative), generator=generator, device=device)[:fill]]
        indices.append(torch.cat((positive, filling)))
    count = torch.tensor([len(index) for index in indices], device=objects.device)
    index = nn.utils.rnn.pad_sequence(indices, batch_first=True)
    valid = torch.arange(index.shape[1], device=index.device) < count[:, None]
    return ChosenCandidates(index, objects.gather(1, index).where(valid, BACKGROUND), valid)


def block_filled(valid: Bool[Tensor, "b q"], num_heads: int) -> Bool[Tensor, "bm q q"] | None:
    """Block the attention of queries to those that only fill up; None where there are none."""
    if bool(valid.all()):
        return None
    # Each sees itself, for an attention to nothing would not be a number.
    themselves = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    return (~valid[:, None] & ~themselves).repeat_interleave(num_heads, 0)


def compute_query_losses(
    group: AuxiliaryGroup, targets: Sequence[NormalizedTargets], images: float, criterion: SetCriterion
) -> dict[str, Float[Tensor, " l"]]:
    """Compute the weighted losses of each layer, of an image divided by its candidates with an object, at least one.

    Args:
        group: of these images.
        targets: one per image.
        images: of the optimizer step, per process; losses are averages over them.
        criterion: of the decoder's predictions.
    """
    losses: dict[str, Tensor] = {}
    counts = group.chosen.valid.sum(1).tolist()
    for i, (count, target) in enumerate(zip(counts, targets, strict=True)):
        objects = group.chosen.objects[i, :count]
        (query,) = torch.where(objects >= 0)
        one = torch.zeros_like(query)
        matches = Matches(one, one, query, objects[query]).repeat(len(group.logits))
        own = group.logits[:, i : i + 1, :count], group.boxes_cxcywh_norm[:, i : i + 1, :count]
        for name, loss in criterion(*own, [target], LossTotals(len(query), 1), matches).items():
            losses[name] = losses.get(name, 0) + loss / images
    return losses
