"""The weights that training begins with: random ones, those of a backbone, or those of a whole detector."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boxwright.compose.recipe import Recipe
from boxwright.compose.recipe_text import typed_options
from boxwright.compose.recipes import resolve
from boxwright.data.format_report import as_typed
from boxwright.detector import Detector
from boxwright.weights.backbone import (
    NORM_EPS_OPTION,
    SourceBackbone,
    load_backbone_weights,
    norm_overrides,
    preprocessing_overrides,
    read_backbone_weights,
)
from boxwright.weights.model import ModelWeights, read_model
from boxwright.weights.overrides import (
    compare_parts,
    list_part_options,
    note_changes,
    note_resized_tables,
    scale_longest_side,
)
from boxwright.weights.transfer import DetectorTransfer, load_detector_weights
from boxwright.workflows.backbone_report import describe_skipped, list_names, report_transfer
from boxwright.workflows.observer import Observer


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Weights to begin with, read; random ones where both are None.

    Args:
        detector: of a whole detector.
        backbone: of a backbone.
    """

    detector: ModelWeights | None = None
    backbone: SourceBackbone | None = None

    @classmethod
    def read(
        cls,
        weights: str | Path | None,
        backbone_weights: str | Path | None,
        *,
        trusted: Collection[str] = (),
        overrides: Mapping[str, Any] | None = None,
    ) -> Beginning:
        """Read what the user named.

        Args:
            weights: of a whole detector.
            backbone_weights: of a backbone.
            trusted: modules that may be imported for parts outside Boxwright.
            overrides: changes of the recipe of the run. Where the files of a detector cannot be read as they are, its
                options of parts count as those that the files do not say.

        Raises:
            FileNotFoundError: nothing there.
            ValueError: both are named, or one cannot be read.
        """
        if weights is not None and backbone_weights is not None:
            raise ValueError("weights are of the whole detector, its backbone too: give them, or backbone weights")
        return cls(
            detector=None if weights is None else _read_detector(weights, trusted, overrides or {}),
            backbone=None if backbone_weights is None else read_backbone_weights(backbone_weights),
        )

    def load(self, detector: Detector, observer: Observer) -> dict[str, Any] | None:
        """Load them into a fresh detector, and say what fitted; returns that for the folder of the run."""
        if self.detector is not None:
            transfer = load_detector_weights(detector, self.detector)
            for line in report_detector_transfer(transfer):
                observer.announce(line)
            if isinstance(detector.recipe, Recipe):
                parts = self.detector.recipe.backbone, detector.recipe.backbone
                for line in note_resized_tables(transfer.interpolated, *parts):
                    observer.note(line)
            return transfer.to_json()
        if self.backbone is not None:
            of_backbone = load_backbone_weights(detector, self.backbone)
            for line in report_transfer(of_backbone, self.backbone, detector):
                observer.announce(line)
            return of_backbone.to_json()
        return None


def _read_detector(weights: str | Path, trusted: Collection[str], overrides: Mapping[str, Any]) -> ModelWeights:
    try:
        return read_model(weights, trusted=trusted)
    except ValueError as error:
        options = {name: value for name, value in overrides.items() if name in list_part_options(overrides)}
        if not options:
            raise
        try:
            return read_model(weights, trusted=trusted, overrides=options)
        except ValueError as with_options:  # They are options of the recipe alone, and not what the files lack.
            raise error from with_options


def resolve_beginning(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any],
    beginning: Beginning,
    observer: Observer,
) -> Recipe:
    """Resolve the recipe of a run; one that begins with other weights takes over what they depend on.

    With those of a backbone, that is how colors are normalized, and the epsilon of norms. With those of a whole
    detector, it is the preprocessing of images, and the options of parts that both name. What is overridden counts.
    Learning rates are multiplied by ``train.optimizer.fine_tune_factor``, but those that are overridden. The observer
    hears notes.
    """
    source = beginning.detector
    if source is None:
        taken = {} if beginning.backbone is None else _of_backbone(recipe, overrides, beginning.backbone)
        resolution = resolve(recipe, taken | _by_dotted_key(overrides))
        for note in (*(() if beginning.backbone is None else beginning.backbone.notes), *resolution.notes):
            observer.note(note)
        return resolution.recipe
    own = resolve(recipe).recipe
    merged = _take_over(own, source)
    resolution = resolve(merged, scale_longest_side(merged.input, overrides))
    notes = [*source.notes, *resolution.notes, *note_changes(source.recipe, resolution.recipe)]
    notes += _note_taken(source.origin.source, own, merged, resolution.recipe, set(list_part_options(overrides)))
    tuned, line = _scale_rates(resolution.recipe, typed_options(overrides, "train"))
    for note in notes + line:
        observer.note(note)
    return tuned


def _of_backbone(
    recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any], source: SourceBackbone
) -> dict[str, Any]:
    """List the options that a backbone's weights bring."""
    whole = overrides.get("backbone")
    if NORM_EPS_OPTION in typed_options(overrides, "backbone") or (isinstance(whole, str) and NORM_EPS_OPTION in whole):
        return preprocessing_overrides(source)
    return preprocessing_overrides(source) | norm_overrides(source, resolve(recipe, overrides).recipe.backbone.name)


def report_detector_transfer(transfer: DetectorTransfer) -> list[str]:
    """Say which tensors were taken, which were not, and which classes kept their rows."""
    taken = len(transfer.loaded) + len(transfer.class_layers)
    lines = [f"weights from {transfer.source}: {taken} of {taken + len(transfer.new)} tensors taken"]
    if transfer.class_layers:
        kept, new = transfer.kept_classes, transfer.new_classes
        rows = (
            f"  {len(kept)} of {len(kept) + len(new)} classes keep their rows of {len(transfer.class_layers)} of them"
        )
        lines.append(f"{rows}: {list_names(kept)}" if kept else rows)
        if new:
            lines.append(f"  {len(new)} are new: {list_names(new)}")
    lines += describe_skipped(transfer.skipped)
    if transfer.new:
        lines.append(f"  {len(transfer.new)} tensors are as initialized: {list_names(transfer.new)}")
    return lines


def _take_over(own: Recipe, weights: ModelWeights) -> Recipe:
    """Take preprocessing, and the options of parts that both name; a model that is the source's has its recipe's name.

    Of chained necks, all have to be the same.
    """
    source = weights.recipe

    def names(recipe: Recipe) -> list[str]:
        return [neck.name for neck in recipe.necks]

    taken = replace(
        own,
        backbone=source.backbone if source.backbone.name == own.backbone.name else own.backbone,
        necks=source.necks if names(source) == names(own) else own.necks,
        head=source.head if source.head.name == own.head.name else own.head,
        input=source.input,
    )
    is_source = taken.parts() == source.parts() != own.parts()
    return replace(taken, name=weights.passport.recipe) if is_source else taken


def _note_taken(source: str, own: Recipe, taken: Recipe, final: Recipe, typed: set[str]) -> list[str]:
    """Say which options are the source's and not those of the recipe that was named; but for those that are typed."""
    stated, of_source, used = (one.to_dict()["input"] for one in (own, taken, final))
    changes = [(f"input.{name}", stated[name], x) for name, x in used.items() if stated[name] != x == of_source[name]]
    typed = typed | {name for name, *_ in compare_parts(taken, final)}
    changes += [change for change in compare_parts(own, final) if change[0] not in typed]
    if not changes:
        return []
    listed = ", ".join(f"{name} {as_typed(here)} (not {as_typed(there)})" for name, there, here in changes)
    recipe = "the recipe" if own.name is None else own.name
    return [f"not as in {recipe} but as in {source}: {listed}"]


def _by_dotted_key(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Spread a mapping of the section ``input``, so that one of its options replaces one that was taken over."""
    section = overrides.get("input")
    if not isinstance(section, Mapping):
        return {key.replace("-", "_"): value for key, value in overrides.items()}
    rest = {key: value for key, value in overrides.items() if key != "input"}
    return {**{f"input.{name}": value for name, value in section.items()}, **rest}


def _scale_rates(recipe: Recipe, typed: set[str]) -> tuple[Recipe, list[str]]:
    train = recipe.train
    factor = train.optimizer.fine_tune_factor
    lr = train.lr if "lr" in typed else train.lr * factor
    backbone_lr = train.backbone_lr
    if backbone_lr is not None and "backbone_lr" not in typed:
        backbone_lr *= factor
    # Done: a run that begins with these options again is not slowed down again.
    optimizer = replace(train.optimizer, fine_tune_factor=1.0)
    tuned = replace(recipe, train=replace(train, lr=lr, backbone_lr=backbone_lr, optimizer=optimizer))
    if (lr, backbone_lr) == (train.lr, train.backbone_lr):
        return tuned, []
    backbone = "" if backbone_lr is None else f", {backbone_lr:g} of the backbone"
    return tuned, [
        f"fine-tuning: learning rate {lr:g}{backbone}, {factor:g} times the recipe's; --train.lr sets another"
    ]
