"""Files, functions and signatures stay small, and types are checked without exceptions."""

from __future__ import annotations

import ast

from source_files import KERNELS, ROOT, functions_of, parse, python_files, relative

MOST_PARAMETERS = 12
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_FILE = 400
MOST_IGNORED_TYPES = 10

ARRAYS = (".npy", ".npz", ".pt", ".pth", ".safetensors", ".json", ".bin")
MOST_BYTES_OF_AN_ARRAY = 50_000
MOST_BYTES_OF_ALL_ARRAYS = 2_000_000

RECORDS = {
    "CocoMetrics": "COCO has 12 numbers, and they are its fields",
    "Annotations": "a table whose columns are its fields",
    "RecordTable": "likewise",
    "Run": "the parts that a workflow puts together",
    "Progress": "all that a checkpoint keeps of a run beside tensors",
}
"""Results that one function makes, and that nobody configures."""

SOURCES = [path for path in python_files("src") if path != KERNELS]


def test_signatures() -> None:
    """Options that belong together are one frozen dataclass."""
    offences = []
    for path in SOURCES:
        for function in functions_of(path):
            arguments = function.args
            names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > MOST_PARAMETERS:
                offences.append(f"{relative(path)}:{function.lineno}: {function.name} has {count} parameters")
    assert not offences, "\n".join(offences)


def test_no_public_function_takes_anything() -> None:
    """A misspelled keyword is Python's own error; options of a recipe are one mapping."""
    offences = [
        f"{relative(path)}:{function.lineno}: {function.name} takes **{function.args.kwarg.arg}"
        for path in SOURCES
        for function in functions_of(path)
        if function.args.kwarg is not None and not function.name.startswith("_")
    ]
    assert not offences, "\n".join(offences)


def test_fields_of_options() -> None:
    """The constructor of a dataclass is a signature as well."""
    offences = []
    for path in SOURCES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
                fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
                if len(fields) > MOST_PARAMETERS and node.name not in RECORDS:
                    offences.append(f"{relative(path)}:{node.lineno}: {node.name} has {len(fields)} fields")
    assert not offences, "\n".join(offences)


def test_functions() -> None:
    offences = []
    for path in SOURCES:
        for function in functions_of(path):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                offences.append(f"{relative(path)}:{function.lineno}: {function.name} has {lines} lines")
    assert not offences, "\n".join(offences)


def test_files() -> None:
    counts = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    offences = [f"{relative(path)} has {lines} lines" for path, lines in counts.items() if lines > MOST_LINES_OF_A_FILE]
    assert not offences, "\n".join(offences)


def test_ignored_types() -> None:
    lines = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if "type: ignore" in line
    ]
    assert len(lines) <= MOST_IGNORED_TYPES, "use typed locals, casts or better types:\n" + "\n".join(lines)


def test_stored_arrays() -> None:
    """Arrays for tests are small: everybody who clones has them for ever."""
    sizes = {relative(path): path.stat().st_size for path in (ROOT / "tests").rglob("*") if path.suffix in ARRAYS}
    offences = [f"{path}: {size:,} bytes" for path, size in sizes.items() if size > MOST_BYTES_OF_AN_ARRAY]
    assert not offences, "\n".join(offences)
    assert sum(sizes.values()) <= MOST_BYTES_OF_ALL_ARRAYS
