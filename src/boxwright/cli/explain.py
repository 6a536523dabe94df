"""``boxwright explain``: where a detection comes from, which pixels it depends on, and how well that holds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from boxwright.cli.arguments import MODEL_HELP, OVERRIDES_HELP, CommandParser, add_trust_argument
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import is_piped, json_target, show
from boxwright.files import check_target, write_text


def run(argv: Sequence[str]) -> int:
    """Explain, write the page and say where it is; return the exit status."""
    options, overrides = _parse(argv)
    target = json_target(options.json)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.explain import explain

    explanation = explain(
        options.model,
        options.image,
        number=options.object,
        method=options.method,
        num_masks=options.num_masks,
        seed=options.seed,
        out=options.out,
        device=options.device,
        trusted=options.trust,
        observer=ConsoleObserver(),
        overrides=overrides,
    )
    if target is not None:
        write_text(target, json.dumps(explanation.to_json()) + "\n")
    if is_piped(target):
        return 0
    one, held = explanation.detection, explanation.faithfulness
    scores = f"insertion {held.insertion_score:.3f}, deletion {held.deletion_score:.3f}; " if held is not None else ""
    lines = [*explanation.describe(), f"{one.name}, score {one.score:.3f}: {scores}page in {options.out}"]
    show("\n".join(lines))
    return 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = CommandParser(
        "explain",
        description="Show where a detection comes from in its model (query, anchor or proposal, layer by layer), and "
        "the pixels that it depends on, on a page, with insertion and deletion scores that tell how well that holds.\n"
        + OVERRIDES_HELP,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("image", metavar="IMAGE", help="an image file")
    parser.add_argument(
        "--object", metavar="N", type=int, default=1, help="number of the detection, the best is 1 (default: 1)"
    )
    parser.add_argument(
        "--method",
        choices=("rise", "gradient", "none"),
        default="rise",
        help="of the pixels: hide random parts of the image (rise, the default), take gradient times input (gradient), "
        "or leave them out (none)",
    )
    parser.add_argument("--num-masks", metavar="N", type=int, default=500, help="of rise (default: 500)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of its masks (default: 0)")
    parser.add_argument(
        "--out", metavar="FILE", default="explanation.html", help="the page (default: explanation.html)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write all numbers as JSON; - prints them instead of words")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")
    add_trust_argument(parser)
    own, overrides = take_overrides(argv)
    options = parser.parse(own)
    for path in (Path(options.out), json_target(options.json)):
        if path is not None:
            check_target(path)
    return options, overrides
