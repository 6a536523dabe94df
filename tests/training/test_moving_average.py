"""The moving average against its closed form."""

from __future__ import annotations

import torch
from torch import nn

from boxwright.training.moving_average import MovingAverage


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).double()


def test_it_is_the_weighted_sum_of_all_weights_so_far() -> None:
    model, decay, steps = network(), 0.9, 7
    history = [model[0].weight.detach().clone()]
    statistics = [model[1].running_mean.clone()]
    average = MovingAverage(model)
    for step in range(1, steps + 1):
        with torch.no_grad():
            model[0].weight.copy_(torch.randn_like(model[0].weight))
        model(torch.randn(4, 2, 5, 5, dtype=torch.float64) + step)
        average.update(model, decay)
        history.append(model[0].weight.detach().clone())
        statistics.append(model[1].running_mean.clone())

    fractions = [decay**steps] + [(1 - decay) * decay ** (steps - step) for step in range(1, steps + 1)]
    assert abs(sum(fractions) - 1) < 1e-12
    for actual, values in ((average.model[0].weight, history), (average.model[1].running_mean, statistics)):
        expected = sum(fraction * value for fraction, value in zip(fractions, values, strict=True))
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    assert average.model[1].num_batches_tracked.item() == steps


def test_the_decay_may_change() -> None:
    model = network()
    start = model[0].bias.detach().clone()
    average = MovingAverage(model)
    with torch.no_grad():
        model[0].bias.add_(1.0)
    average.update(model, 0.75)
    torch.testing.assert_close(average.model[0].bias, start + 0.25, rtol=0, atol=1e-12)
    average.update(model, 0.0)
    assert torch.equal(average.model[0].bias, model[0].bias)


def test_it_is_a_copy_for_evaluation() -> None:
    model = network().train()
    average = MovingAverage(model)
    assert not any(module.training for module in average.model.modules())
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.training
    assert average.model[0].weight.data_ptr() != model[0].weight.data_ptr()


def test_it_goes_on_from_saved_weights() -> None:
    model, other = network(), network()
    with torch.no_grad():
        other[0].weight.add_(1.0)
    average = MovingAverage(model)
    average.load(other.state_dict())
    assert torch.equal(average.model[0].weight, other[0].weight)
