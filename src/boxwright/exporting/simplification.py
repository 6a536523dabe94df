"""Graphs without what need not be computed: constants, and operators that change nothing."""

from __future__ import annotations

from typing import Any

FOLDED_INPUT = 2**16
"""Numbers that an operator on constants reads at most, so that it is computed now; transposed weights may be larger."""

FOLDED_OUTPUT = 2**20
"""Numbers of the result at most: 4 MiB of a file."""


def simplify(model: Any) -> None:
    """Fold constants and drop what is repeated or not needed, in place.

    Without the rewriting that ``torch.onnx.export`` can do after it, which takes as long as the translation itself.

    Args:
        model: of ``onnx_ir``.
    """
    from onnx_ir.passes import Sequential, common
    from onnxscript.optimizer import fold_constants

    fold_constants(model, input_size_limit=FOLDED_INPUT, output_size_limit=FOLDED_OUTPUT)
    passes = Sequential(
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.OutputFixPass(),
    )
    passes(model)
