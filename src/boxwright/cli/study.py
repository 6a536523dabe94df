"""``boxwright study``: variations of a recipe, each trained with several seeds, and compared."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from boxwright.cli.arguments import CommandParser
from boxwright.cli.recipe_arguments import take_overrides
from boxwright.cli.terminal import show
from boxwright.workflows.study_file import find_study, list_studies, study_summary


def run(argv: Sequence[str]) -> int:
    """Run a study, and say what came out; return the exit status."""
    options, overrides = _parse(argv)
    if options.study is None:
        names = list_studies()
        width = max(map(len, names))
        show("\n".join(f"{name:{width}}  {study_summary(name)}" for name in names))
        return 0
    find_study(options.study)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.cli.torchrun import boxwright_command
    from boxwright.training.interrupt import Interrupted
    from boxwright.workflows.study import study

    again = boxwright_command(["study", *argv])
    observer = ConsoleObserver()
    try:
        result = study(
            options.study,
            data=options.data,
            out=options.out,
            seeds=options.seeds,
            latency=not options.no_latency,
            engine=options.engine,
            observer=observer,
            overrides=overrides,
        )
    except Interrupted as interrupted:
        observer.announce(f"stopped and saved; to go on:  {again}")
        return 128 + interrupted.number
    show(f"\n{result.to_markdown()}\n{result.num_finished} of {result.num_runs} runs, in {result.folder}/study.html")
    return 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = CommandParser(
        "study",
        description="Train variations of a recipe with several seeds and compare them: a page, a table, and JSON. The "
        "same command goes on where it was stopped; processes of torchrun share the runs. Without a name, list the "
        "studies that there are.\nOptions of the recipe are those of all runs: --train.steps 100 --input.image_size 64",
    )
    parser.add_argument("study", metavar="STUDY", nargs="?", help="name of a study, or path of a YAML file")
    parser.add_argument("--data", metavar="DIR", help="data set in place of the study's, in any known format")
    parser.add_argument("--out", metavar="DIR", help="folder of the study; studies/STUDY where left out")
    parser.add_argument("--seeds", metavar="N,...", type=_read_seeds, help="in place of the study's")
    parser.add_argument("--no-latency", action="store_true", help="do not measure the time of prediction at the end")
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="one run after the other (local), or each as a job of Ray (ray), where that is installed",
    )
    own, overrides = take_overrides(argv)
    return parser.parse(own), overrides


def _read_seeds(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"seeds are whole numbers with commas between, as 0,1,2, not {text!r}"
        ) from None
