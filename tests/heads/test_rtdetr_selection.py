"""Selection of queries in RT-DETR: no token at the border, and no gradient from the decoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from rtdetr_head import NO_DENOISING, maps, small_head

from boxwright.structures import Targets


def test_tokens_at_the_border_have_the_content_of_an_empty_one() -> None:
    """Of 64 rows the centers of the first and the last lie within 1 % of the border; on coarser levels none does."""
    head = small_head(num_queries=10_000)
    output = head(maps(2, 512, 64))
    with torch.no_grad():
        empty = head.encoder_classes(head.encoder_output(torch.zeros(16)))
    is_empty = torch.isclose(output.selected_logits, empty, rtol=0, atol=1e-6).all(-1)
    assert is_empty.sum(1).tolist() == [2 * 8, 2 * 8]


def test_the_selection_is_trained_by_its_own_losses_alone(make_targets: Callable[..., list[Targets]]) -> None:
    """Not through the contents and boxes that the decoder begins with."""
    head, targets = small_head(denoising=NO_DENOISING).train(), make_targets([3, 1])
    output = head(maps(), None, targets)
    (output.logits.square().sum() + output.boxes_cxcywh_norm.square().sum()).backward(retain_graph=True)
    of_selection = {
        name: parameter
        for name, parameter in head.named_parameters()
        if name.startswith(("encoder_output.", "encoder_classes.", "encoder_boxes."))
    }
    assert len(of_selection) > 8
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in of_selection.values())
    (output.selected_logits.square().sum() + output.selected_boxes_cxcywh_norm.square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in of_selection.values())
