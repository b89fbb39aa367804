"""Print, as JSON, which uses of TensorRT in our code the installed module does not know: `python api_uses.py MODULE`.

A use is a chain of names that begins with `trt`, or an attribute of a variable that holds one of TensorRT's objects.
"""

import ast
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[3] / "trtjob" / "engines" / "tensorrt"
# Our variables for TensorRT's objects.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "value": "ITensor",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "parser": "OnnxParser",
    "error": "ParserError",
    "runtime": "Runtime",
    "_engine": "ICudaEngine",
    "engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "base": "ILogger",
}
MODULES = ("builder.py", "engine.py", "messages.py")


def main(name: str) -> None:
    trt = import_module(name)
    uses = sorted({use for module in MODULES for use in uses_in(PACKAGE / module)})
    unknown = [f"{module}:{line}: {'.'.join(chain)}" for module, line, chain in uses if not _is_known(trt, chain)]
    json.dump({"version": trt.__version__, "looked_at": len(uses), "unknown": unknown}, sys.stdout)


def uses_in(path: Path) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Yield the file, the line and the chain of names of each use."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and (chain := _chain(node)):
            yield path.name, node.lineno, chain


def _chain(node: ast.Attribute) -> tuple[str, ...]:
    """Return `trt.A.b` as ("A", "b"), `profile.set_shape` as ("IOptimizationProfile", "set_shape"), else nothing."""
    names: list[str] = []
    at: ast.expr = node
    while isinstance(at, ast.Attribute):
        names.append(at.attr)
        at = at.value
    if isinstance(at, ast.Call) and ast.unparse(at) == "flavour()" and names[-1] == "trt":
        return tuple(reversed(names[:-1]))
    if not isinstance(at, ast.Name):
        return ()
    if at.id == "trt":
        return tuple(reversed(names))
    if at.id == "found" and names[-1] == "trt":
        return tuple(reversed(names[:-1]))
    if at.id == "self" and len(names) > 1 and names[-1] in CLASSES:
        return (CLASSES[names[-1]], names[-2])
    return (CLASSES[at.id], names[-1]) if at.id in CLASSES else ()


def _is_known(trt: Any, chain: tuple[str, ...]) -> bool:
    at = trt
    for name in chain:
        if not hasattr(at, name):
            return False
        at = getattr(at, name)
    return True


if __name__ == "__main__":
    main(sys.argv[1])
