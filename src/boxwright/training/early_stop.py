"""The end of a run whose evaluations do not become better."""

from __future__ import annotations

from boxwright.training.callbacks import StopRequest
from boxwright.training.checkpoint import Progress
from boxwright.training.run import Run


def count_evaluation(progress: Progress, value: float) -> None:
    """Count evaluations in a row without a better value; call it before ``value`` may become the best.

    A measure that is undefined, as AP without any object, is negative and does not count. Nor does the best evaluation
    itself, which a run makes again that was killed right after writing its weights: it is counted with them.
    """
    if value >= 0 and progress.best_step != progress.step:
        progress.evaluations_without_rise = 0 if value > progress.best else progress.evaluations_without_rise + 1


def stop_early(run: Run, progress: Progress, stop: StopRequest) -> None:
    """Ask to stop where ``train.schedule.early_stop`` evaluations in a row had no better value.

    All that it depends on is in the run's progress: one that is resumed ends where it would have ended unbroken.
    """
    patience = run.options.schedule.early_stop
    if progress.best_step > progress.step:
        return  # the evaluation that was counted last is still to be made again
    if patience and progress.evaluations_without_rise >= patience:
        line = f"{progress.measure} has not risen for {progress.evaluations_without_rise} evaluations"
        stop(line)
        if run.console is not None:
            run.console.print(
                f"{line}: the run ends (train.schedule.early_stop {patience})", highlight=False, soft_wrap=True
            )
