"""``boxwright draw``: a data set that the project draws itself, for first experiments."""

from __future__ import annotations

from collections.abc import Sequence

from boxwright.cli.arguments import CommandParser
from boxwright.cli.terminal import show


def run(argv: Sequence[str]) -> int:
    """Draw, and say how many images there are; return the exit status."""
    parser = CommandParser("draw", description="Draw images of shapes in COCO format, with boxes and masks.")
    parser.add_argument("--out", metavar="DIR", required=True, help="a new folder, or one of an older drawn set")
    parser.add_argument("--train", metavar="N", type=int, default=400, help="images to train on (default: 400)")
    parser.add_argument("--val", metavar="N", type=int, default=100, help="images held out (default: 100)")
    parser.add_argument("--image-size", metavar="N", type=int, default=256, help="longest side (default: 256)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of everything that is drawn (default: 0)")
    options = parser.parse(argv)
    from boxwright.workflows.draw import draw

    out = draw(options.out, train=options.train, val=options.val, image_size=options.image_size, seed=options.seed)
    show(f"{options.train} images to train on and {options.val} held out, in {out}")
    return 0
