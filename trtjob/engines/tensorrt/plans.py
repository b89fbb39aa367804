"""The plans of this machine: each belongs to one model, one set of batch sizes, one TensorRT and one kind of GPU.

plans/
  <key>.plan       what TensorRT made; code in all but name, so that none is loaded but what was built here
  <key>.json       the sidecar: what the plan belongs to and its sha256, checked before TensorRT sees a byte
  <key>.failed     why the plan cannot be built, for an hour
  <key>.lock       held by the one process that builds it
  timing/<key>     what builds have learnt of a GPU's kernels
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from trtjob import atomic
from trtjob.documents import Document, problems
from trtjob.engines.tensorrt import plan_failures
from trtjob.engines.tensorrt.builder import BuildProgress
from trtjob.engines.tensorrt.plan_lock import locked
from trtjob.errors import DeviceMemoryError, EngineError, StorageError

log = logging.getLogger(__name__)

# Makes one process of many do what the name stands for, while the others wait.
SingleFlight = Callable[[str], AbstractContextManager[object]]

# Counted up when the builder or the self-check changes: plans that were made before are built, and checked, again.
RECIPE = 3


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a plan depends on of a GPU."""

    name: str
    compute_capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan belongs to. model: sha256 of the ONNX file, whose precision is in its graph.

    tf32: whether float32 may be multiplied as TF32; workspace_mib: what a layer may borrow, None: all.
    recipe: how trtjob builds, which changes when what it makes of the same model does.
    """

    model: str
    batches: str
    optimization_level: int
    flavour: str
    version: str
    gpu: Gpu
    tf32: bool = True
    workspace_mib: int | None = None
    recipe: int = RECIPE

    @property
    def digest(self) -> str:
        """Return the key as a file's name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    @property
    def told(self) -> dict[str, Any]:
        """Return the key as a sidecar tells it: the GPU by its name and compute capability."""
        key = asdict(self)
        gpu = key.pop("gpu")
        return key | {"gpu_name": gpu["name"], "compute_capability": gpu["compute_capability"]}

    @property
    def timing(self) -> str:
        """Return the key of what builds learn, which no model limits."""
        learnt = [self.flavour, self.version, asdict(self.gpu)]
        return hashlib.sha256(json.dumps(learnt).encode()).hexdigest()[:32]


class Sidecar(Document):
    """What stands beside a plan. built_at: seconds since the epoch; seconds: that the build took."""

    model: str
    batches: str
    optimization_level: int
    flavour: str
    version: str
    gpu_name: str
    compute_capability: tuple[int, int]
    tf32: bool
    workspace_mib: int | None
    recipe: int
    plan_sha256: str
    size_bytes: int
    built_at: float
    seconds: float

    def fits(self, key: PlanKey) -> bool:
        """Tell whether the plan is that of a key."""
        return key.told.items() <= self.model_dump().items()


class SharedPlans(Protocol):
    """Where machines with the same GPU share what one of them has built; who can write there can run code on them."""

    def read(self, name: str) -> bytes | None:
        """Return a file, None where there is none. Raises StorageError."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all. Raises StorageError."""
        ...


class PlanCache:
    """The plans below one folder, at most `max_bytes` of them: the longest unused go first."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 20 << 30,
        shared: SharedPlans | None = None,
        is_ahead: bool = False,
        on_wait: BuildProgress = lambda *_: True,
    ) -> None:
        """shared: asked before a plan is built, and given what was built.

        is_ahead: plans are built for later: one that failed before is tried again, one that cannot be kept is an error.
        on_wait: called while another process of this machine builds the plan; False stops the wait.
        """
        self.folder = folder
        self._max_bytes = max_bytes
        self._shared = shared
        self._is_ahead = is_ahead
        self._on_wait = on_wait

    def get(self, key: PlanKey) -> bytes | None:
        """Return a plan, None where there is none that is whole and belongs to the key: it has to be built again."""
        plan, trouble = self._look_up(key)
        if trouble:
            log.warning(
                "a plan is not used and is built again", extra={"plan": str(self._path(key)), "reason": trouble}
            )
        return plan

    def _look_up(self, key: PlanKey) -> tuple[bytes | None, str]:
        """Return a plan, or None and what is wrong with the one that is there."""
        path = self._path(key)
        try:
            sidecar = Sidecar.model_validate_json(path.with_suffix(".json").read_bytes())
            plan = path.read_bytes()
        except FileNotFoundError:
            return None, ""
        except (OSError, ValidationError) as err:
            return None, _reason(err)
        if not sidecar.fits(key) or hashlib.sha256(plan).hexdigest() != sidecar.plan_sha256:
            return None, "it is damaged or foreign"
        with suppress(OSError):
            os.utime(path)  # used now: the last to be evicted
        return plan, ""

    def get_or_build(
        self, key: PlanKey, build: Callable[[bytes], tuple[bytes, bytes]], single_flight: SingleFlight
    ) -> bytes:
        """Return a plan, fetched or built where there is none: by one process, while the others wait for it.

        build: given what was learnt before, returns the plan and what is learnt now. Where it raises EngineError, the
        reason is remembered and raised at once the next time; one that may pass is tried twice.
        Raises EngineError; StorageError where a plan that is built for later cannot be kept; BuildCancelled.
        """
        plan, _ = self._look_up(key)  # what is wrong with it is said below, once
        if plan is not None:
            return plan
        with single_flight(f"plan:{key.digest}"), locked(self._path(key).with_suffix(".lock"), self._on_wait):
            if (plan := self.get(key)) is not None:  # another process has built it meanwhile
                return plan
            if (shared := self._fetch(key)) is not None:
                sidecar, plan = shared
                self._keep(key, plan, sidecar)
                return plan
            return self._build(key, build)

    def _build(self, key: PlanKey, build: Callable[[bytes], tuple[bytes, bytes]]) -> bytes:
        failed = self._path(key).with_suffix(plan_failures.SUFFIX)
        if not self._is_ahead:
            plan_failures.check(failed)
        started = time.perf_counter()
        try:
            plan, learnt = build(self._learnt(key))
        except DeviceMemoryError:
            raise
        except EngineError as err:
            plan_failures.remember(failed, key.model, err)
            raise
        plan_failures.forget(failed)
        sidecar = _sidecar(key, plan, time.perf_counter() - started)
        self._learn(key, learnt)
        try:
            self._keep(key, plan, sidecar)
        finally:
            self._share(key, plan, sidecar)
        return plan

    def _fetch(self, key: PlanKey) -> tuple[Sidecar, bytes] | None:
        """Return the shared plan of a key, None where there is none; the sidecar is checked before the plan is read."""
        if self._shared is None:
            return None
        try:
            document = self._shared.read(f"{key.digest}.json")
            if document is None:
                return None
            sidecar = Sidecar.model_validate_json(document)
            plan = self._shared.read(f"{key.digest}.plan") if sidecar.fits(key) else None
        except (StorageError, ValidationError) as err:
            log.warning("the shared plan cannot be read and is built here", extra={"error": _reason(err)})
            return None
        if plan is None or hashlib.sha256(plan).hexdigest() != sidecar.plan_sha256:
            log.warning("the shared plan is damaged or foreign and is built here", extra={"plan": key.digest})
            return None
        return sidecar, plan

    def _share(self, key: PlanKey, plan: bytes, sidecar: Sidecar) -> None:
        if self._shared is None:
            return
        try:
            self._shared.write(f"{key.digest}.plan", plan)
            self._shared.write(f"{key.digest}.json", _document(sidecar))  # last: a plan without it is none
        except StorageError as err:
            log.warning("the plan cannot be shared", extra={"error": str(err)})

    def list(self) -> "list[Sidecar]":
        """Return what is known of each plan that is whole, the last used first."""
        found = []
        for path in sorted(self.folder.glob("*.plan"), key=_used_at, reverse=True):
            with suppress(OSError, ValidationError):
                found.append(Sidecar.model_validate_json(path.with_suffix(".json").read_bytes()))
        return found

    def remove_all(self, model: str) -> None:
        """Remove the plans of a model, by its sha256, and what is known of failures."""
        for path in self.folder.glob("*.json"):
            with suppress(OSError, ValidationError):
                if Sidecar.model_validate_json(path.read_bytes()).model == model:
                    _remove(path.with_suffix(".plan"))
        plan_failures.forget_all(self.folder, model)

    def _path(self, key: PlanKey) -> Path:
        return self.folder / f"{key.digest}.plan"

    def _learnt(self, key: PlanKey) -> bytes:
        try:
            return (self.folder / "timing" / key.timing).read_bytes()
        except OSError:
            return b""

    def _learn(self, key: PlanKey, learnt: bytes) -> None:
        """Keep what was learnt; without it the next build only takes longer."""
        with suppress(OSError):
            (self.folder / "timing").mkdir(parents=True, exist_ok=True)
            atomic.write(self.folder / "timing" / key.timing, learnt)

    def _keep(self, key: PlanKey, plan: bytes, sidecar: Sidecar) -> None:
        """Write a plan; where that fails it is still good for this process, and only built again next time.

        Raises StorageError where it is built for later.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.write(self._path(key), plan)
            atomic.write(self._path(key).with_suffix(".json"), _document(sidecar))
        except OSError as err:
            if self._is_ahead:
                raise StorageError(f"the plan is built, but cannot be kept in {self.folder}: {err}") from err
            log.warning("a plan cannot be kept", extra={"folder": str(self.folder), "error": str(err)})
            return
        self._evict(keep=self._path(key))

    def _evict(self, keep: Path) -> None:
        plans = sorted(self.folder.glob("*.plan"), key=_used_at, reverse=True)
        total = _size(keep)
        for path in plans:
            if path == keep:
                continue
            size = _size(path)
            if total + size > self._max_bytes:
                with suppress(OSError):
                    _remove(path)
            else:
                total += size


def _sidecar(key: PlanKey, plan: bytes, seconds: float) -> Sidecar:
    return Sidecar(
        **key.told,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        size_bytes=len(plan),
        built_at=time.time(),
        seconds=round(seconds, 1),
    )


def _document(sidecar: Sidecar) -> bytes:
    return sidecar.model_dump_json(indent=1).encode()


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has just removed it
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another process has just removed it
        return 0


def _reason(err: Exception) -> str:
    """Return an error in one line; pydantic's own text has several."""
    return problems(err) if isinstance(err, ValidationError) else str(err)


def _remove(plan: Path) -> None:
    plan.with_suffix(".json").unlink(missing_ok=True)  # first: a plan without it is none
    plan.unlink(missing_ok=True)
