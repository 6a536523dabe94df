"""Questions of a request, read from the part of its address behind the question mark."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from starlette.datastructures import QueryParams

from boxwright.serving.refusal import RefusalError
from boxwright.serving.served_model import ServedModel
from boxwright_runtime.streaming import NOT_TUNED, Threshold

AnswerForm = Literal["json", "coco", "image"]

QUERY = ("threshold", "classes", "format")


@dataclass(frozen=True)
class Question:
    """The detections that a client wants, and in which form.

    Args:
        thresholds: least score, or that of each class, by its label.
        labels: of the classes that count; all of them where None.
        form: of the answer.
    """

    thresholds: float | tuple[float, ...]
    labels: frozenset[int] | None
    form: AnswerForm


def read_question(query: QueryParams, model: ServedModel, threshold: Threshold) -> Question:
    """Read a question.

    Args:
        query: of the request.
        model: that answers.
        threshold: where the query has none.

    Raises:
        RefusalError: a name or a value is not known.
    """
    for name in query:
        if name not in QUERY:
            raise RefusalError(400, f"unknown parameter {name!r}: there are {', '.join(QUERY)}")
    form = query.get("format", "json")
    if form not in get_args(AnswerForm):
        raise RefusalError(400, f"format is json, coco or image, not {form!r}")
    if form == "coco" and model.task != "detection":
        raise RefusalError(400, f"COCO's results are of detectors, and this model is for {model.task}: take json")
    return Question(
        read_thresholds(query.get("threshold", threshold), model),
        _read_labels(query.getlist("classes"), [one.name for one in model.categories]),
        form,  # type: ignore[arg-type]  # it is one of them
    )


def read_thresholds(text: str | float, model: ServedModel) -> float | tuple[float, ...]:
    """Read the least score of each class, or that of all.

    Raises:
        RefusalError: it is no such number, or they were not tuned.
    """
    if text == "tuned":
        if model.thresholds is None:
            raise RefusalError(400, f"the thresholds of this model {NOT_TUNED}")
        return model.thresholds
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise RefusalError(400, f"threshold is between 0 and 1, or tuned, not {text!r}")
    return value


def _read_labels(texts: Sequence[str], names: Sequence[str]) -> frozenset[int] | None:
    """Read classes by their names, one or several with commas in each text."""
    if not texts:
        return None
    chosen = {name for text in texts for name in ([text] if text in names else map(str.strip, text.split(",")))}
    for name in sorted(chosen.difference(names)):
        raise RefusalError(400, f"there is no class {name!r}{_suggest(name, names)}")
    return frozenset(label for label, name in enumerate(names) if name in chosen)


def _suggest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else "; /model lists them"
