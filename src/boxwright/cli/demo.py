"""``boxwright demo``: the whole job on data that the project draws itself."""

from __future__ import annotations

from collections.abc import Sequence

from boxwright.cli.arguments import CommandParser
from boxwright.cli.terminal import quote_command, show

_RECIPE, _BUDGET = "rtdetr_tiny", "4m"


def run(argv: Sequence[str]) -> int:
    """Run the demo, and say where its files are; return the exit status."""
    parser = CommandParser("demo", description="Draw a data set, train on it, evaluate, predict and write a report.")
    parser.add_argument("--out", metavar="DIR", default="demo", help="folder of the demo (default: demo)")
    parser.add_argument("--recipe", default=_RECIPE, help=f"what to train (default: {_RECIPE})")
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help=f"time for training, like 90s (default: {_BUDGET} for {_RECIPE}, else the recipe's)",
    )
    options = parser.parse(argv)
    from boxwright.cli.console import ConsoleObserver, TerminalConsole
    from boxwright.evaluation.tables import evaluation_tables
    from boxwright.training.interrupt import Interrupted
    from boxwright.workflows.demo import demo

    observer = ConsoleObserver()
    try:
        result = demo(options.out, recipe=options.recipe, budget=options.budget, processes=None, observer=observer)
    except Interrupted as interrupted:
        again = quote_command("demo", *argv)
        observer.announce(f"stopped and saved in {options.out}/run; to go on:  {again}")
        return 128 + interrupted.number
    TerminalConsole().print(evaluation_tables(result.evaluation))
    show(f"""
report        {result.report}
predictions   {result.predictions}
checkpoint    {result.checkpoint}

next, on data of your own, in any known format (COCO, Pascal VOC, YOLO, LabelMe, CSV):
  boxwright train rtdetr_r18 --data DIR --image-size 320 --train.budget 30m
  boxwright list""")
    return 0
