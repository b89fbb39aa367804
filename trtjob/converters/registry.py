"""The models of this machine: known by the sha256 of their ONNX file, called by names.

models/
  files/<sha256>.onnx, .json      a model and its spec, read without opening the model
  names/<name>.json               a name: which model it stands for
  conversions/<key>.json          what a conversion gave, so that the same files are converted once
"""

import difflib
import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trtjob import __version__
from trtjob.converters.output import write_atomically
from trtjob.engines.spec import ModelSpec, load_spec, problems
from trtjob.errors import ConversionError, ModelError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_CONVERTIBLE = (".weights",)


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model under a name; `created_at`: seconds since the epoch."""

    name: str
    sha256: str
    path: Path
    spec: ModelSpec
    size_bytes: int
    created_at: float


class _Name(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sha256: str
    created_at: float


class ModelRegistry:
    """The models below one folder. Safe to use from several processes: every file appears whole."""

    def __init__(self, models_dir: Path) -> None:
        self.folder = models_dir
        self._files, self._names, self._conversions = (models_dir / n for n in ("files", "names", "conversions"))

    def list(self) -> "list[RegisteredModel]":
        """Return the models by name."""
        return [self._load(path.stem) for path in sorted(self._names.glob("*.json"))]

    def get(self, name: str) -> RegisteredModel:
        """Return a model by its name. Raises ModelError where there is none, with names that are near."""
        self._expect(name)
        return self._load(name)

    def add(self, name: str, model: Path) -> RegisteredModel:
        """Copy an ONNX file of ours into the registry, under a name. Raises ModelError, ConversionError."""
        name, sha256 = _valid_name(name), _sha256(model)
        if not self._has(sha256):
            spec = load_spec(model)
            self._prepare()
            write_atomically(self._files / f"{sha256}.onnx", model.read_bytes())
            self._write_spec(sha256, spec)
        return self.call(name, sha256)

    def remove(self, name: str) -> None:
        """Forget a name, and the model where no other name stands for it. Raises ModelError where there is none."""
        self._expect(name)
        sha256 = self._stands_for(name)
        (self._names / f"{name}.json").unlink(missing_ok=True)
        if sha256 is not None and all(self._stands_for(path.stem) != sha256 for path in self._names.glob("*.json")):
            for path in (self._files / f"{sha256}.json", self._files / f"{sha256}.onnx"):
                path.unlink(missing_ok=True)

    def converted(self, key: str) -> str | None:
        """Return the sha256 of what a conversion gave, None where it has to be done."""
        try:
            sha256 = str(json.loads((self._conversions / f"{key}.json").read_bytes())["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return sha256 if self._has(sha256) else None

    def adopt(self, name: str, convert: Callable[[Path], ModelSpec], key: str) -> RegisteredModel:
        """Run a conversion into the registry: `convert` writes the file that it is given, whole."""
        name = _valid_name(name)
        self._prepare()
        fresh = self._files / f".{secrets.token_hex(8)}.part"
        try:
            spec = convert(fresh)
            sha256 = _sha256(fresh)
            fresh.replace(self._files / f"{sha256}.onnx")
        finally:
            fresh.unlink(missing_ok=True)
        self._write_spec(sha256, spec)
        write_atomically(self._conversions / f"{key}.json", json.dumps({"sha256": sha256}).encode())
        return self.call(name, sha256)

    def call(self, name: str, sha256: str) -> RegisteredModel:
        """Give a model that is here a name."""
        name = _valid_name(name)
        if self._stands_for(name) != sha256:
            document = _Name(sha256=sha256, created_at=time.time())
            write_atomically(self._names / f"{name}.json", document.model_dump_json().encode())
        return self._load(name)

    def _expect(self, name: str) -> None:
        """Raise ModelError where there is no such name, with names that are near."""
        if not _NAME.fullmatch(name) or not (self._names / f"{name}.json").is_file():
            names = sorted(path.stem for path in self._names.glob("*.json"))
            near = difflib.get_close_matches(name, names, 3) or names[:3]
            hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ModelError(f"no model '{name}'. {hint}List them with `trtjob models`, or name a model's file")

    def _stands_for(self, name: str) -> str | None:
        """Return the sha256 of a name's model, None where the name is free or damaged."""
        try:
            return _Name.model_validate_json((self._names / f"{name}.json").read_bytes()).sha256
        except (OSError, ValidationError):
            return None

    def _load(self, name: str) -> RegisteredModel:
        path = self._names / f"{name}.json"
        try:
            entry = _Name.model_validate_json(path.read_bytes())
            spec = ModelSpec.model_validate_json((self._files / f"{entry.sha256}.json").read_bytes())
            file = self._files / f"{entry.sha256}.onnx"
            return RegisteredModel(name, entry.sha256, file, spec, file.stat().st_size, entry.created_at)
        except (OSError, ValidationError) as err:
            what = problems(err) if isinstance(err, ValidationError) else f"'{err.filename}': {err.strerror}"
            raise ModelError(
                f"the registered model '{name}' is damaged: {what}. Remove it with: trtjob models remove {name}"
            ) from err

    def _has(self, sha256: str) -> bool:
        """Tell whether a model is here, whole: one that was damaged on the disk is made anew."""
        model = self._files / f"{sha256}.onnx"
        return model.is_file() and (self._files / f"{sha256}.json").is_file() and _sha256(model) == sha256

    def _prepare(self) -> None:
        try:
            for folder in (self._files, self._names, self._conversions):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ConversionError(f"cannot create '{err.filename}': {err.strerror}. Set TRTJOB_HOME") from err

    def _write_spec(self, sha256: str, spec: ModelSpec) -> None:
        write_atomically(self._files / f"{sha256}.json", spec.model_dump_json(indent=1).encode())


def resolve_model(
    argument: str,
    *,
    registry: ModelRegistry,
    cfg: Path | None = None,
    labels: Path | None = None,
    on_convert: Callable[[Path], None] | None = None,
) -> RegisteredModel:
    """Return the model that a user means: a Darknet .weights, a converted .onnx, or a name in the registry.

    on_convert: called with the file before a conversion that was not done before.
    Raises ModelError, ConversionError.
    """
    path = _expanded(argument)
    if path.suffix.lower() in _CONVERTIBLE and _is_file(path):
        return convert_model(path, cfg=cfg, labels=labels, registry=registry, on_convert=on_convert)
    if cfg is not None or labels is not None:
        raise ModelError(f"--cfg and --labels belong to a Darknet .weights file, but the model is '{argument}'")
    if path.suffix.lower() == ".onnx" and _is_file(path):
        return registry.add(name_of(path), path)
    if _is_file(path):
        raise ModelError(f"'{argument}' is no model that can be used: expected a Darknet .weights or a converted .onnx")
    if "/" in argument or path.suffix.lower() in (".onnx", *_CONVERTIBLE):
        raise ModelError(f"no model file '{argument}'")
    return registry.get(argument)


def convert_model(
    model: Path,
    *,
    registry: ModelRegistry,
    cfg: Path | None = None,
    labels: Path | None = None,
    out: Path | None = None,
    name: str | None = None,
    on_convert: Callable[[Path], None] | None = None,
) -> RegisteredModel:
    """Convert a model unless the same files were converted before, register it, and copy it to `out`.

    Raises ModelError where the file is none that can be converted, ConversionError where it cannot be.
    """
    if not _is_file(model):
        raise ModelError(f"no model file '{model}'")
    if model.suffix.lower() not in _CONVERTIBLE:
        raise ModelError(f"'{model}' cannot be converted: expected a Darknet .weights file")
    if out is not None and not out.parent.is_dir():
        raise ConversionError(f"cannot write '{out}': there is no folder '{out.parent}'")
    name = _valid_name(name) if name else name_of(model)
    # onnx takes 0.2 s to import, and what is converted already needs none of it.
    from trtjob.converters.darknet.files import find_cfg, find_labels

    cfg = cfg or find_cfg(model)
    labels = labels or find_labels(model, cfg)
    key = _conversion_key(model, cfg, labels)
    if known := registry.converted(key):
        registered = registry.call(name, known)
    else:
        if on_convert is not None:
            on_convert(model)
        from trtjob.converters.darknet.convert import onnx_from_darknet

        registered = registry.adopt(name, lambda file: onnx_from_darknet(model, file, cfg=cfg, labels=labels), key)
    if out is not None:
        write_atomically(out, registered.path.read_bytes())
    return registered


def _expanded(argument: str) -> Path:
    path = Path(argument)
    try:
        return path.expanduser()
    except RuntimeError:  # `~name` where nobody is called so: a file's name
        return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as err:  # a name that is too long, a folder that may not be entered
        raise ModelError(f"'{path}' cannot be read: {err.strerror}") from err


def name_of(path: Path) -> str:
    """Return the name that a model gets from its file."""
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", path.stem).strip("-._@")[:100] or "model"


def _valid_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ModelError(f"'{name}' cannot be a model's name: letters, digits and . _ @ - are allowed, up to 100")
    return name


def _conversion_key(*files: Path) -> str:
    """Return what a conversion's result depends on, as one hash: the files, by content, and our version."""
    identity: list[Any] = [__version__, *((file.name, _sha256(file)) for file in files)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise ModelError(f"'{path}' cannot be read: {err.strerror}") from err
