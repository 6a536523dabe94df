"""The classifier against torchvision's, its means beside padding, and images of other than one object."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import resnet18

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.classifier import Classifier
from boxwright.structures import Category, Features, ImageSize, Level, Spec, Targets
from boxwright_runtime.input_format import InputFormat
from conformance import compare_gradients, compare_tensors, compare_terms, note_inputs

SPEC: Spec = {"c4": Level(3, 16), "c5": Level(5, 32)}


def maps(batch: int = 2) -> Features:
    generator = torch.Generator().manual_seed(0)
    return {
        "c4": torch.randn(batch, 3, 4, 6, generator=generator),
        "c5": torch.randn(batch, 5, 2, 3, generator=generator),
    }


def targets(*labels: list[int]) -> list[Targets]:
    return [Targets(torch.tensor(own, dtype=torch.int64), torch.zeros(len(own), 4), (64, 96)) for own in labels]


@pytest.mark.parametrize(("depth", "parameters"), [(50, 25_557_032), (101, 44_549_160)])
def test_parameters_of_resnets(depth: int, parameters: int) -> None:
    with torch.device("meta"):
        backbone = ResNet(depth=depth, levels=("c5",))
        head = Classifier(backbone.out_spec, 1000)
    assert sum(p.numel() for part in (backbone, head) for p in part.parameters()) == parameters


@pytest.mark.conforms("classifier", "torchvision")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_logits_losses_and_gradients_are_torchvisions(smoothing: float) -> None:
    torch.manual_seed(0)
    theirs = resnet18(num_classes=7).double()
    backbone = ResNet(depth=18, levels=("c5",)).double()
    head = Classifier(backbone.out_spec, 7, label_smoothing=smoothing).double()
    weights = theirs.state_dict()
    head.linear.load_state_dict({"weight": weights.pop("fc.weight"), "bias": weights.pop("fc.bias")})
    backbone.load_state_dict(weights)
    ours = Detector(backbone, [], head, categories=[Category(i, str(i)) for i in range(7)], input_format=InputFormat())
    images, labels = torch.rand(3, 3, 65, 97, dtype=torch.float64), torch.tensor([6, 0, 3])
    output = ours(images)
    expected = theirs(images)
    note_inputs(images)
    compare_tensors("outputs", output.logits, expected, limit=1e-12)
    loss = ours.loss(output, targets([6], [0], [3]))["class"]
    reference = F.cross_entropy(expected, labels, label_smoothing=smoothing)
    compare_terms({"class": loss}, {"class": reference}, limit=1e-12)
    loss.backward()
    reference.backward()
    ours_by_name = {**dict(backbone.named_parameters()), "fc.weight": head.linear.weight, "fc.bias": head.linear.bias}
    gradients = [{name: p.grad for name, p in x.items()} for x in (ours_by_name, dict(theirs.named_parameters()))]
    compare_gradients(*gradients, limit=1e-9, elements=(1e-9, 1e-12))


def test_it_averages_every_level_side_by_side() -> None:
    head, features = Classifier(SPEC, 4), maps()
    means = torch.cat([features["c4"].mean((2, 3)), features["c5"].mean((2, 3))], 1)
    expected = F.linear(means, head.linear.weight, head.linear.bias)
    torch.testing.assert_close(head(features).logits, expected, rtol=0, atol=1e-6)


def test_padding_is_no_part_of_the_mean() -> None:
    head, features = Classifier(SPEC, 4), maps()
    mask = torch.zeros(2, 64, 96, dtype=torch.bool)
    mask[1, 32:] = mask[1, :, 64:] = True
    cut = {"c4": features["c4"][1:, :, :2, :4], "c5": features["c5"][1:, :, :1, :2]}
    together = head(features, mask).logits
    torch.testing.assert_close(together[:1], head({k: x[:1] for k, x in features.items()}).logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(together[1:], head(cut).logits, rtol=0, atol=1e-6)


def test_each_object_counts_once_and_none_not_at_all() -> None:
    head, features = Classifier(SPEC, 4, label_smoothing=0.0), maps(3)
    output = head(features)
    terms = -output.logits.log_softmax(1)
    loss = head.loss(output, targets([1, 3], [], [2]))["class"]
    torch.testing.assert_close(loss, (terms[0, 1] + terms[0, 3] + terms[2, 2]) / 3)
    assert head.loss(output, targets([], [], []))["class"] == 0


@pytest.mark.parametrize("num_classes", [2, 9])
def test_the_likeliest_classes_best_first_with_the_image_as_box(num_classes: int) -> None:
    head = Classifier(SPEC, num_classes).eval()
    output = head(maps(), None, None, torch.tensor([[64.0, 96.0], [50.0, 37.0]]))
    decoded = head.decode(output)
    probabilities: Tensor = output.logits.softmax(1)
    assert decoded.valid.all()
    assert decoded.scores.shape == (2, min(5, num_classes))
    for scores, labels, row in zip(decoded.scores, decoded.labels, probabilities, strict=True):
        assert labels.tolist() == row.argsort(descending=True)[:5].tolist()
        torch.testing.assert_close(scores, row[labels])
    torch.testing.assert_close(decoded.boxes[:, 0], torch.tensor([[0.0, 0.0, 96.0, 64.0], [0.0, 0.0, 37.0, 50.0]]))


def test_the_box_is_the_whole_original_image() -> None:
    # 500 / 224 and 37 / 224 are no numbers of float32.
    backbone = ResNet(depth=18, width=8, levels=("c5",))
    head = Classifier(backbone.out_spec, 3)
    detector = Detector(
        backbone, [], head, categories=[Category(i, str(i)) for i in range(3)], input_format=InputFormat()
    )
    sizes = [ImageSize(480, 500, 224, 224), ImageSize(37, 641, 224, 224)]
    with torch.no_grad():
        detections = detector.eval().postprocess(detector(torch.rand(2, 3, 224, 224)), sizes)
    for one, size in zip(detections, sizes, strict=True):
        assert one.boxes.tolist() == [[0, 0, size.width, size.height]] * 3


def test_a_fresh_one_is_sure_of_nothing() -> None:
    head = Classifier(SPEC, 100)
    assert head(maps()).logits.softmax(1).max() < 0.02
    assert head.linear.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("options", [{"dropout": 1.5}, {"label_smoothing": -0.1}])
def test_fractions_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"is in \[0, 1\]"):
        Classifier(SPEC, 4, **options)
