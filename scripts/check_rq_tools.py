"""See that rq-exporter and rq-dashboard, as they are, show a queue of trtjob: `python -m scripts.check_rq_tools`.

They bring an older RQ, so they are installed into an environment of their own, which goes again.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from benchmarks.__main__ import SAMPLE
from benchmarks.node import node
from trtjob.bench.synthetic_images import write_pictures
from trtjob.converters.registry import ModelRegistry
from trtjob.converters.run import resolve_model
from trtjob.jobs.spec import Annotate

TOOLS = ("rq-exporter==3.1.0", "rq-dashboard==0.9.0", "six")  # rq-dashboard needs six, and does not say so
IMAGES, SHARD = 2000, 50


def main() -> int:
    """Run a job, look at its queue with both tools, and print what they show. Returns 0 where both show it."""
    with tempfile.TemporaryDirectory(prefix="trtjob-rq-") as temporary:
        folder = Path(temporary)
        _install(folder / "tools")
        model = resolve_model(str(SAMPLE), registry=ModelRegistry(folder / "home" / "models"))
        source = write_pictures(folder / "photos", "640x480", IMAGES)
        with node(folder / "home") as running:
            url = f"unix://{running.connection.place}"
            running.wait_for_worker()
            spec = running.submit(source, model, folder / "out", annotate=Annotate.NONE, shard_size=SHARD)
            running.wait(spec.job_id, lambda view: view.live_done > 0)
            shown = [_exporter(folder / "tools", url), _dashboard(folder / "tools", url, spec.job_id)]
            running.cancel(spec.job_id)
    return 0 if all(shown) else 1


def _install(place: Path) -> None:
    uv = str(Path(sys.executable).parent / "uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, place], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", place / "bin" / "python", *TOOLS], check=True)


def _exporter(tools: Path, url: str) -> bool:
    port = _free_port()
    command: list[Path | str] = [
        tools / "bin" / "rq-exporter",
        "--redis-url",
        url,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]

    def look() -> bool:
        lines = [line for line in _get(f"http://127.0.0.1:{port}/metrics").splitlines() if line.startswith("rq_")]
        sys.stdout.write("rq-exporter\n" + "".join(f"    {line}\n" for line in lines if "{" in line))
        text = "\n".join(lines)
        return 'rq_jobs{queue="trtjob",status="queued"}' in text and 'state="busy"' in text

    return _running(command, look)


def _dashboard(tools: Path, url: str, job_id: str) -> bool:
    port = _free_port()
    command: list[Path | str] = [
        tools / "bin" / "rq-dashboard",
        "--redis-url",
        url,
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
    ]

    def look() -> bool:
        at = f"http://127.0.0.1:{port}/0/data"
        (worker,) = json.loads(_get(f"{at}/workers.json"))["workers"]
        waiting = json.loads(_get(f"{at}/jobs/trtjob/queued/8/asc/1.json"))["jobs"]
        sys.stdout.write(f"rq-dashboard\n    worker {worker['name']}: {worker['state']}\n")
        sys.stdout.write("".join(f"    waiting: {job['description']}\n" for job in waiting))
        return bool(waiting) and all(job["description"].startswith(job_id) for job in waiting)

    return _running(command, look)


def _running(command: list[Path | str], look: Callable[[], bool]) -> bool:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            return look()
        finally:
            process.terminate()


def _get(url: str) -> str:
    deadline = time.monotonic() + 15
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
