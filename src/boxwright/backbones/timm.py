"""Any model of timm that has feature maps, by its name there: EfficientNet, ConvNeXt, Swin and many more."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import Node

from boxwright.layers.conv import FrozenBatchNorm2d, Norm, fold_tensors
from boxwright.layers.timm_models import create_timm_model, error_reason, import_timm
from boxwright.structures import Features, Level, ResidualBlock, Spec

__all__ = ["Timm"]

LevelName = Literal["c1", "c2", "c3", "c4", "c5", "c6"]

SHORTCUTS = ("downsample", "shortcut")
"""Names of shortcuts in timm's residual blocks."""


class Timm(nn.Module):
    """The feature maps of a timm model, with fresh weights: nothing is downloaded.

    A level is called by the stride that it has in the unchanged model: c3 is the last map of stride 8. A stride that
    is no power of two takes the nearest: a vision transformer with patches of 14 pixels has a c4. Where a model only
    takes multiples of its stride, images are padded with zeros at the right and at the bottom, and maps cut to
    ceil(size / stride).

    Args:
        model: its name in timm; ``timm.list_models()`` has all.
        levels: maps that go out, of c1 (stride 2) to c6; what only the others need is not built.
        output_stride: 8 or 16 dilates the stages beyond instead of striding, in models that can: their levels keep
            their names and have this stride.
        drop_path: how often a block of the last stage is left out in training; the earlier the block, the less often.
        norm: ``batch`` trains batch norms, ``frozen`` keeps their statistics and affine as they are loaded.
        frozen: modules of the model, by their paths in timm, that stay as they are loaded, their norms too: ``stem``,
            or ``stem,stages_0``.
        norm_momentum: of batch norms, the weight of the newest batch; timm's own, mostly 0.1, where None.
            EfficientDet trains with 0.01, which TensorFlow calls 0.99.

    Source: Wightman, PyTorch Image Models, whose code this runs; names in checkpoints are timm's, below ``body``.
    Checked against timm 1.0.31: same weights, same maps. The parameters of the EfficientNets are those of google/automl
    without the classifier; hgnetv2_b4, b5 and b6 are ``HGNetv2`` L, X and H of lyuwenyu/RT-DETR 068dfde, maps and
    gradients. Differs in leaving out the blocks beyond the last level, which timm builds and runs.
    """

    def __init__(
        self,
        *,
        model: str = "tf_efficientnet_b0",
        levels: tuple[LevelName, ...] = ("c3", "c4", "c5"),
        output_stride: Literal[8, 16, 32] = 32,
        drop_path: float = 0.0,
        norm: Norm = "batch",
        frozen: tuple[str, ...] = (),
        norm_momentum: float | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        _check_options(output_stride, drop_path, norm, norm_momentum)
        offered = _offered_levels(model)
        _check_levels(model, levels, offered)
        options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
        if output_stride != 32:
            if offered[levels[-1]].stride <= output_stride:
                raise ValueError(f"output_stride {output_stride} changes none of the levels {list(levels)}")
            options["output_stride"] = output_stride
        indices = tuple(offered[name].position for name in levels)
        self.body = _create(model, out_indices=indices, **options)
        info = [self.body.feature_info.info[index] for index in indices]
        self.out_spec: Spec = {n: Level(i["num_chs"], i["reduction"]) for n, i in zip(levels, info, strict=True)}
        if output_stride != 32 and any(
            level.stride != min(offered[name].stride, output_stride) for name, level in self.out_spec.items()
        ):
            raise ValueError(f"model {model} cannot have an output_stride of {output_stride}")
        if "stage" in info[-1] and hasattr(self.body, "blocks"):
            # EfficientNets and MobileNets, which timm builds and runs to the end; stage 0 is the stem.
            del self.body.blocks[info[-1]["stage"] :]
        self._set_norms(model, norm, norm_momentum)
        self._freeze(model, frozen)
        self.channels_last = getattr(getattr(self.body, "output_fmt", None), "value", "NCHW") == "NHWC"
        self.multiple = self._fit(model, max(level.stride for level in offered.values()))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        height, width = images.shape[-2:]
        if self.multiple > 1:
            padded = [(side + self.multiple - 1) // self.multiple * self.multiple for side in (height, width)]
            images = F.pad(images, (0, padded[1] - width, 0, padded[0] - height))
        features = self._name(self.body(images))
        if self.multiple == 1:
            return features
        strides = {name: level.stride for name, level in self.out_spec.items()}
        # Negated twice, a division would round another way in a graph with free sizes.
        cells = {n: [(side + stride - 1) // stride for side in (height, width)] for n, stride in strides.items()}
        return {n: x[..., : cells[n][0], : cells[n][1]] for n, x in features.items()}

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Put every batch norm into the convolution whose output it takes, for inference.

        Which one that is, only running the model tells. Norms that take anything else stay as they are.
        """
        side = 2 * max(level.stride for level in self.out_spec.values())
        some = next(self.parameters())
        for conv, path in _conv_norm_pairs(self, torch.zeros(1, 3, side, side, device=some.device, dtype=some.dtype)):
            norm = self.get_submodule(path)
            weight, bias = fold_tensors(conv, norm)
            # In place, for timm's own convolutions pad in other ways than torch's.
            conv.weight.copy_(weight)
            conv.bias = nn.Parameter(bias, requires_grad=conv.weight.requires_grad)
            rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
            self.set_submodule(path, nn.Sequential(*rest) if rest else nn.Identity())

    def residual_blocks(self) -> Iterator[ResidualBlock]:
        """List the modules that timm gives a shortcut, with their layers in the order of execution."""
        for path, block in self.named_modules():
            if any(hasattr(block, name) for name in SHORTCUTS):
                layers = [name for name, layer in block.named_children() if name not in SHORTCUTS]
                yield ResidualBlock(tuple(f"{path}.{layer}" for layer in layers))

    def _name(self, maps: list[Tensor]) -> Features:
        if self.channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]  # b h w c -> b c h w
        return dict(zip(self.out_spec, maps, strict=True))

    def _set_norms(self, model: str, norm: Norm, momentum: float | None) -> None:
        """Freeze the batch norms, or set their momentum."""
        if norm == "batch" and momentum is None:
            return
        paths = [path for path, module in self.named_modules() if isinstance(module, nn.BatchNorm2d)]
        if not paths:
            option = "a frozen norm" if norm == "frozen" else f"norm_momentum {momentum}"
            raise ValueError(f"model {model} has no batch norms, so that {option} means nothing to it")
        for path in paths:
            batch_norm = self.get_submodule(path)
            assert isinstance(batch_norm, nn.BatchNorm2d)
            if norm == "frozen":
                self.set_submodule(path, _FrozenNormAct(batch_norm))
            else:
                batch_norm.momentum = momentum

    def _freeze(self, model: str, frozen: tuple[str, ...]) -> None:
        """Let modules stay as they are, and the statistics of their norms."""
        paths = {path: module for path, module in self.body.named_modules() if path}
        for name in frozen:
            if name not in paths:
                near = difflib.get_close_matches(name, paths, n=3) or [path for path in paths if "." not in path]
                raise ValueError(f"model {model} has no module '{name}' to freeze; nearest: {', '.join(near)}")
            paths[name].requires_grad_(False)
            for path, module in paths.items():
                if f"{path}.".startswith(f"{name}.") and isinstance(module, nn.BatchNorm2d):
                    self.body.set_submodule(path, _FrozenNormAct(module))

    def _fit(self, model: str, coarsest: int) -> int:
        """Determine the multiple that sides of images are padded to.

        Also freezes what no level depends on, if the model has such parameters: they cannot be trained. Both are known
        after the first such model of a process. Models are the same by their name and the shapes of their tensors.
        """
        shapes = tuple((name, x.shape) for name, x in chain(self.body.named_parameters(), self.body.named_buffers()))
        key = (model, coarsest, tuple(self.out_spec.items()), shapes)
        if key not in _FITS:
            self.body.eval()
            _FITS[key] = self._run_without_storage(model, coarsest)
            self.body.train()
        for name in _FITS[key].unused:
            self.body.get_parameter(name).requires_grad_(False)
        return _FITS[key].multiple

    def _run_without_storage(self, model: str, coarsest: int) -> _Fit:
        """Run the model on a device that has shapes only."""
        stride = max(level.stride for level in self.out_spec.values())
        parameters = {name: p.detach().to("meta").requires_grad_() for name, p in self.body.named_parameters()}
        state = parameters | {name: x.to("meta") for name, x in self.body.named_buffers()}
        problem = ""
        # One more than a multiple is odd at every halving. A model may need more than the levels asked for.
        height, width = coarsest + 1, 2 * coarsest + 1
        for multiple in (1, stride, coarsest, 2 * coarsest):
            images = torch.zeros(2, 3, height + -height % multiple, width + -width % multiple, device="meta")
            try:
                features = self._name(torch.func.functional_call(self.body, state, (images,)))
            except Exception as error:  # Models fail in all sorts of ways at a size that is not theirs.
                problem = error_reason(error)
                continue
            if all(tuple(x.shape) == self._shape(name, images) for name, x in features.items()):
                total = torch.stack([x.sum() for x in features.values()]).sum()
                gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
                return _Fit(multiple, [n for n, g in zip(parameters, gradients, strict=True) if g is None])
        raise ValueError(f"model {model} does not take images of any size{problem}")

    def _shape(self, name: str, images: Tensor) -> tuple[int, ...]:
        level = self.out_spec[name]
        return (len(images), level.channels, *(-(-side // level.stride) for side in images.shape[-2:]))


class _FrozenNormAct(FrozenBatchNorm2d):
    """A batch norm of timm's, made constant; most of timm's include what comes after a norm."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps)
        self.load_state_dict(norm.state_dict())
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        out: Tensor = self.act(self.drop(super().forward(x)))
        return out


class _Fit(NamedTuple):
    """Facts that running a model tells: the multiple that sides are padded to, and parameters that do nothing."""

    multiple: int
    unused: Sequence[str]


_FITS: dict[tuple[Any, ...], _Fit] = {}


class _Offered(NamedTuple):
    """A level of a model: which of its maps, and the stride that it has unless it is dilated."""

    position: int
    stride: int


def _create(model: str, **options: Any) -> Any:
    """Create timm's model without what comes after its maps."""
    return create_timm_model(model, {"features_only": True, **options})


def list_levels(model: str) -> tuple[LevelName, ...]:
    """List the levels that a model of timm has, fine to coarse.

    Raises:
        ValueError: no such model, or none with feature maps.
    """
    names = _offered_levels(model)
    return tuple(name for name in get_args(LevelName) if name in names)


def _check_options(output_stride: int, drop_path: float, norm: Norm, norm_momentum: float | None) -> None:
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride is one of 8, 16, 32, not {output_stride}")
    if not 0 <= drop_path < 1:
        raise ValueError(f"drop_path is at least 0 and below 1, not {drop_path}")
    if norm_momentum is not None and not 0 < norm_momentum <= 1:
        raise ValueError(f"norm_momentum is above 0 and at most 1, not {norm_momentum}")
    if norm_momentum is not None and norm == "frozen":
        raise ValueError(f"norm_momentum {norm_momentum} is of batch norms, and norm is frozen")


@cache
def _offered_levels(model: str) -> Mapping[str, _Offered]:
    """List the levels of a model: of maps of one stride the last."""
    with torch.device("meta"):
        body = _create(model)
    strides = [info["reduction"] for info in body.feature_info.info]
    return {f"c{round(math.log2(s))}": _Offered(index, s) for index, s in enumerate(strides) if s > 1}


def _check_levels(model: str, levels: tuple[str, ...], offered: Mapping[str, _Offered]) -> None:
    if not levels or list(levels) != [name for name in offered if name in levels]:
        names = ", ".join(f"{name} (stride {level.stride})" for name, level in offered.items())
        missing = [name for name in levels if name not in offered]
        asked = f"not {', '.join(missing)}" if missing else f"fine to coarse and each once, not {list(levels)}"
        raise ValueError(f"model {model} has levels {names}; {asked}")


def _conv_norm_pairs(module: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, str]]:
    """List convolutions, and the paths of the norms that alone take their outputs, each called once."""
    layers = import_timm().layers
    convs: list[tuple[nn.Conv2d, Node]] = []
    norms: list[tuple[str, Node]] = []
    handles = []
    # Only these types: a subclass may compute something else.
    for path, child in module.named_modules():
        if type(child) in (nn.Conv2d, layers.Conv2dSame):
            handles.append(child.register_forward_hook(lambda conv, _, out: convs.append((conv, out.grad_fn))))
        elif type(child) in (nn.BatchNorm2d, layers.BatchNormAct2d, _FrozenNormAct):
            handles.append(child.register_forward_pre_hook(lambda _, x, path=path: norms.append((path, x[0].grad_fn))))
    try:
        with torch.enable_grad():
            outputs = [x.grad_fn for x in module(images.requires_grad_()).values()]
    finally:
        for handle in handles:
            handle.remove()
    uses = _uses(outputs)
    calls = Counter([id(conv) for conv, _ in convs]) + Counter([path for path, _ in norms])
    made = {node: conv for conv, node in convs if uses[node] == 1 and calls[id(conv)] == 1}
    return [(made[node], path) for path, node in norms if node in made and calls[path] == 1]


def _uses(outputs: list[Node]) -> Counter[Node]:
    """Count the operations, or outputs, that take each result from which the outputs come."""
    uses = Counter(outputs)
    unseen = list(uses)
    while unseen:
        for node, _ in unseen.pop().next_functions:
            if node is not None:
                uses[node] += 1
                if uses[node] == 1:
                    unseen.append(node)
    return uses
