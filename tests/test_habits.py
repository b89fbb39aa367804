"""What tests do not do: name what is private. A test of it stands in the way of who would write it another way."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
OURS = ("trtjob", "scripts", "benchmarks")
# Private by their look alone: methods of named tuples, what Jupyter calls, the end of a process.
PUBLIC = {"_asdict", "_replace", "_repr_html_", "_exit"}

# Where one may stand: after a dot, in quotes, or in an import. To parse every test would take seconds.
SUSPECT = re.compile(
    r"""(?<!self)(?<!cls)\._[A-Za-z]|["'][\w.]*\b_[A-Za-z]|import [^\n]*\b_[A-Za-z]|^ +_\w+,$""", re.MULTILINE
)


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def private_names(source: str) -> Iterator[str]:
    """Yield each private name of ours that a test imports, reads, or sets as an attribute by its name."""
    if not SUSPECT.search(source):
        return
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in OURS:
                yield from (alias.name for alias in node.names if is_private(alias.name))
            case (
                ast.Attribute(value=ast.Name(id="self" | "cls")) | ast.Attribute(value=ast.Call(func=ast.Name("super")))
            ):
                pass
            case ast.Attribute() if is_private(node.attr):
                yield ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr" | "object"), args=[_, ast.Constant(name), *_]):
                if is_private(name):
                    yield str(name)
            case ast.Call(func=ast.Attribute(attr="setattr" | "patch"), args=[ast.Constant(str(dotted)), *_]):
                if any(map(is_private, dotted.split("."))):
                    yield dotted


def test_no_test_names_what_is_private() -> None:
    found = {str(path.relative_to(TESTS)): [*private_names(path.read_text())] for path in TESTS.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_private_names_are_seen() -> None:
    source = """
from trtjob.jobs import _plan
job._state = 3
self._own = 1
monkeypatch.setattr(module, "_LIMIT", 1)
monkeypatch.setattr("trtjob.storage.trouble._troubles", {})
os._exit(1)
"""
    assert sorted(private_names(source)) == ["_LIMIT", "_plan", "job._state", "trtjob.storage.trouble._troubles"]
