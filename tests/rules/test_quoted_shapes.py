"""Shapes in annotations are texts: a formatter takes ``"n *s"`` for a product of two names and removes the quotes."""

from __future__ import annotations

import ast

from source_files import python_files, relative

ARRAYS = ("Tensor", "np.ndarray")


def unquoted(source: str) -> list[str]:
    """List the annotations of arrays whose shape is an expression."""
    pairs = (
        node.slice.elts
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and len(node.slice.elts) == 2
    )
    return [f"{ast.unparse(kind)}, {ast.unparse(shape)}" for kind, shape in pairs if _is_array(kind, shape)]


def _is_array(kind: ast.expr, shape: ast.expr) -> bool:
    return ast.unparse(kind) in ARRAYS and isinstance(shape, ast.BinOp)


def test_no_shape_is_an_expression() -> None:
    files = python_files("src")
    assert len(files) > 100
    shapes = {relative(path): unquoted(path.read_text(encoding="utf-8")) for path in files}
    assert {path: one for path, one in shapes.items() if one} == {}


def test_an_expression_is_seen() -> None:
    assert unquoted('def f(x: Float[Tensor, n * s]) -> Float[Tensor, "n d"]: ...') == ["Tensor, n * s"]
    assert unquoted('def f(x: Int64[np.ndarray, "n 2"], y: tuple[Tensor, Tensor]) -> None: ...') == []
