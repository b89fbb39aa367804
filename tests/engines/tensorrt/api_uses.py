"""Print, as JSON, which uses of TensorRT in our code a module of it does not know: `python api_uses.py MODULE`.

A use is a chain of names that begins with `trt`, or an attribute of a variable that holds one of TensorRT's objects; of
a call, its number of arguments and their keywords are looked up too, in the signature that the docstring begins with.
Names that our code uses only where a version has them are said apart, with what our one place for versions makes of it.
"""

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[3] / "trtjob" / "engines" / "tensorrt"
# Our variables for TensorRT's objects.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "value": "ITensor",
    "layer": "ILayer",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "parser": "OnnxParser",
    "error": "ParserError",
    "runtime": "Runtime",
    "_engine": "ICudaEngine",
    "engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "context": "IExecutionContext",
    "base": "ILogger",
    "flags": "NetworkDefinitionCreationFlag",
}
MODULES = ("builder.py", "engine.py", "flavour.py", "messages.py", "runtime.py")
# What our code uses only where it is there, or where a trait of the version says that it is.
BEHIND_TRAITS = frozenset(
    {
        ("BuilderFlag", "FP16"),
        ("BuilderFlag", "INT8"),
        ("BuilderFlag", "PREFER_PRECISION_CONSTRAINTS"),
        ("IBuilderConfig", "progress_monitor"),
        ("ILayer", "precision"),
        ("ILayer", "set_output_type"),
        ("IProgressMonitor",),
        ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("ParserError", "node_name"),
        ("ParserError", "node_operator"),
        ("PreviewFeature", "PROFILE_SHARING_0806"),
    }
)


def main(name: str) -> None:
    trt = import_module(name)
    uses = sorted({use for module in MODULES for use in uses_in(PACKAGE / module)})
    required = [use for use in uses if use[2] not in BEHIND_TRAITS]
    unknown = [f"{module}:{line}: {'.'.join(chain)}" for module, line, chain in required if not is_known(trt, chain)]
    calls = [call for module in MODULES for call in calls_in(PACKAGE / module) if is_known(trt, call.chain)]
    answers = [(call, is_taken(trt, call)) for call in calls]
    unknown += [str(call) for call, is_fine in answers if is_fine is False]
    answer = {
        "version": trt.__version__,
        "looked_at": len(uses),
        "calls": sum(is_fine is not None for _, is_fine in answers),
        "unknown": unknown,
        "behind_traits": {".".join(chain): is_known(trt, chain) for chain in sorted(BEHIND_TRAITS)},
        "unused": [".".join(chain) for chain in sorted(BEHIND_TRAITS - {chain for *_, chain in uses})],
        "traits": traits_of(name, trt),
        "works": {what: _works(check, trt) for what, check in (("logger", _logger), ("monitor", _monitor))},
    }
    json.dump(answer, sys.stdout)


def traits_of(name: str, trt: Any) -> dict[str, Any]:
    """Return what our one place for versions says of a module."""
    from trtjob.engines.tensorrt.flavour import Flavour, eras_of

    found = Flavour("tensorrt_rtx" if name == "tensorrt_rtx" else "tensorrt", trt.__version__, trt)
    era = eras_of(found)[0]
    return {
        "is_weakly_typed": found.is_weakly_typed,
        "network_flags": found.network_flags,
        "has_monitor": found.has_monitor,
        "keeps_timing_cache": found.keeps_timing_cache,
        "reads_old_opsets_only": found.reads_old_opsets_only,
        "lowest": list(era.lowest),
    }


def _works(check: Callable[[Any], None], trt: Any) -> str:
    try:
        check(trt)
    except Exception as err:  # noqa: BLE001 - whatever it is, the test shows it
        return f"{type(err).__name__}: {err}"
    return ""


def _logger(trt: Any) -> None:
    """Make our logger of the module's own class, and have it take a message."""
    from trtjob.engines.tensorrt.flavour import Flavour
    from trtjob.engines.tensorrt.messages import Messages, logger_class

    messages = Messages()
    logger = logger_class(Flavour("tensorrt", trt.__version__, trt), messages)()
    logger.log(trt.ILogger.ERROR, "out of\nworkspace")
    assert messages.take() == "out of workspace"


def _monitor(trt: Any) -> None:
    """Make our progress monitor, where the module has them, and have it tell of a step."""
    if trt.__name__ != "tensorrt_rtx":
        sys.modules["tensorrt"] = trt
    from trtjob.engines.tensorrt.builder import BuildWatch
    from trtjob.engines.tensorrt.flavour import flavour

    if not flavour().has_monitor:
        return
    told: list[tuple[str, int, int]] = []

    def stop(phase: str, done: int, total: int) -> bool:
        told.append((phase, done, total))
        return False

    monitor = BuildWatch(stop).monitor()
    monitor.phase_start("kernels", None, 4)
    assert monitor.step_complete("kernels", 0) is False
    assert told == [("kernels", 1, 4)]


def uses_in(path: Path) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Yield the file, the line and the chain of names of each use."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and (chain := _chain(node)):
            yield path.name, node.lineno, chain
        if isinstance(node, ast.Call) and (chain := _asked_for(node)):
            yield path.name, node.lineno, chain


def _asked_for(node: ast.Call) -> tuple[str, ...]:
    """Return what `hasattr` or `getattr` is asked for, by name, else nothing."""
    if not (isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr")):
        return ()
    name = node.args[1]
    assert isinstance(name, ast.Constant)
    return _chain(ast.Attribute(node.args[0], str(name.value)))


@dataclass(frozen=True, slots=True)
class Call:
    """One call: how many arguments it has by place, and the names of the others."""

    module: str
    line: int
    chain: tuple[str, ...]
    positional: int
    keywords: tuple[str, ...]

    def __str__(self) -> str:
        arguments = [*["_"] * self.positional, *(f"{name}=" for name in self.keywords)]
        return f"{self.module}:{self.line}: {'.'.join(self.chain)}({', '.join(arguments)})"


def calls_in(path: Path) -> Iterator[Call]:
    """Yield the calls of TensorRT's functions, methods and classes; those with `*` or `**` cannot be told."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (chain := _chain(node.func))):
            continue
        keywords = [keyword.arg for keyword in node.keywords]
        if None not in keywords and not any(isinstance(argument, ast.Starred) for argument in node.args):
            is_bound = chain[-1] != "__init__"  # which our subclasses call with their self
            positional = len(node.args) if is_bound else len(node.args) - 1
            yield Call(path.name, node.lineno, chain, positional, tuple(name for name in keywords if name))


def is_taken(trt: Any, call: Call) -> bool | None:
    """Tell whether one of a function's signatures takes a call; None where its docstring shows none."""
    found = trt
    for name in call.chain:
        found = getattr(found, name)
    function = vars(found).get("__init__", found) if isinstance(found, type) else found
    signatures = list(_signatures(function.__doc__ or ""))
    if not signatures:
        return None
    return any(_fits(signature, call) for signature in signatures)


def _signatures(doc: str) -> Iterator[list[tuple[str, bool]]]:
    """Yield the parameters of each signature in a docstring of pybind11: their names, and whether each is optional."""
    for match in re.finditer(r"^(?:\d+\. )?\w+\((.*)\)\s*->", doc, re.MULTILINE):
        parameters = []
        # Split at the commas between parameters, not at those inside a type such as Tuple[int, int].
        for part in re.split(r",\s*(?![^\[(]*[\])])", match[1]):
            name = re.match(r"\*{0,2}(\w+)", part.strip())
            if name and name[1] not in ("self", "arg0_self"):
                parameters.append((name[1], "=" in part or part.strip().startswith("*")))
        yield parameters


def _fits(signature: list[tuple[str, bool]], call: Call) -> bool:
    by_name = signature[call.positional :]
    if call.positional > len(signature) or not set(call.keywords) <= {name for name, _ in by_name}:
        return False
    return all(is_optional or name in call.keywords for name, is_optional in by_name)


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
    if at.id == "self" and names[-1] == "trt":
        return tuple(reversed(names[:-1]))
    if at.id == "self" and len(names) > 1 and names[-1] in CLASSES:
        return (CLASSES[names[-1]], names[-2])
    return (CLASSES[at.id], names[-1]) if at.id in CLASSES else ()


def is_known(trt: Any, chain: tuple[str, ...]) -> bool:
    at = trt
    for name in chain:
        if not hasattr(at, name):
            return False
        at = getattr(at, name)
    return True


if __name__ == "__main__":
    main(sys.argv[1])
