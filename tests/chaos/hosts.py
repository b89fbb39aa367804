"""Hosts on one machine: each has a network, a name and mounts of its own, and cables that can lose packets each way.

A host is a process that waits, in namespaces of its own, for the end of its standard input, and what runs in it ends
with the test run too, however that ends. So all goes: namespaces with their last process, a cable with either end.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Way = Literal["both", "out", "in"]  # as the host sees it

QUEUE, STORE = "queue", "store"
NETWORKS = {QUEUE: "198.18", STORE: "198.19"}  # for tests of networks alone (RFC 2544); the test run chooses the rest
_PROGRAMS = ("ip", "tc", "unshare", "nsenter", "setpriv", "mount")
_START = 'echo "$0" > /proc/sys/kernel/hostname && ip link set lo up && echo ready && exec cat'
# Classic BPF: load a random word; below the limit into class 1:2, else into none.
_SHARE = "4,32 0 0 4294963256,53 1 0 {limit},6 0 0 65538,6 0 0 0"


class NoHosts(Exception):
    """This machine does not let us make hosts. The text says why."""


@dataclass(frozen=True, slots=True)
class Cable:
    """The way between a host and one network: `name` at the host, `socket` at the switch."""

    host: "Host"
    name: str
    switch: "Host"
    socket: str

    def lose(self, share: float = 1.0, way: Way = "both") -> None:
        """Lose packets without a word: this share of those that leave the host, come to it, or both."""
        if way in ("both", "out"):
            _lose(self.host, self.name, share)
        if way in ("both", "in"):
            _lose(self.switch, self.socket, share)

    def unplug(self) -> None:
        """Take the cable out, which the host sees."""
        self.host.run("ip", "link", "set", self.name, "down")

    def mend(self) -> None:
        """Make the cable as new."""
        self.host.run("ip", "link", "set", self.name, "up")
        for end, device in ((self.host, self.name), (self.switch, self.socket)):
            if "noqueue" not in end.run("tc", "qdisc", "show", "dev", device):
                end.run("tc", "qdisc", "del", "dev", device, "root")


def _lose(host: "Host", device: str, share: float) -> None:
    """Lose what a device sends. Not by `netem`, which many a kernel lacks."""
    if share >= 1:
        host.run("tc", "qdisc", "replace", "dev", device, "root", "blackhole")
        return
    host.run("tc", "qdisc", "replace", "dev", device, "root", "handle", "1:", "htb", "default", "1")
    for number in ("1:1", "1:2"):
        rate = ("htb", "rate", "10gbit", "quantum", "60000")
        host.run("tc", "class", "add", "dev", device, "parent", "1:", "classid", number, *rate)
    host.run("tc", "qdisc", "add", "dev", device, "parent", "1:2", "blackhole")
    chance = _SHARE.format(limit=int(share * 2**32))
    host.run("tc", "filter", "add", "dev", device, "parent", "1:", "protocol", "all", "bpf", "bytecode", chance)


@dataclass
class Host:
    """One host; `cables` by the network that they lead to."""

    name: str
    process: "subprocess.Popen[str]"
    cables: dict[str, Cable] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def within(self) -> tuple[str, ...]:
        """What starts a command in this host when it is put before it. The command ends with the test run."""
        enter = ("nsenter", "--target", str(self.process.pid), "--net", "--uts", "--mount", "--")
        return (*enter, "setpriv", "--pdeathsig", "KILL", "--")

    def run(self, *command: str | Path) -> str:
        """Run a command in the host and return what it says. Raises NoHosts where it fails."""
        return _run(*self.within, *command)

    def hide(self, folder: Path) -> None:
        """Mount an empty file system over a folder, for this host alone."""
        self.run("mount", "-t", "tmpfs", "none", folder)

    def show(self, folder: Path) -> None:
        """Take away what `hide` mounted."""
        self.run("umount", "--lazy", folder)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def _run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise NoHosts(f"`{' '.join(map(str, command))}` fails: {done.stderr.strip()}")
    return done.stdout


def _start(name: str) -> Host:
    process = subprocess.Popen(
        ["unshare", "--net", "--uts", "--mount", "--", "sh", "-c", _START, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        _, err = process.communicate(timeout=10)
        raise NoHosts(f"no namespaces can be made here: {err.strip()}")
    return Host(name, process)


@dataclass
class Site:
    """One network for the queue's server and one for the store's, with the hosts on them. The test run is on both."""

    switch: Host
    number: int
    count: int = 1  # of the places in a network that are given out; the first is the test run's
    hosts: dict[str, Host] = field(default_factory=dict)

    def host(self, name: str, networks: Sequence[str] = (QUEUE, STORE)) -> Host:
        """Start a host with a cable to each of the networks. name: at most eight letters."""
        host = self.hosts[name] = _start(name)
        self.count += 1
        for network in networks:
            device, socket = network, f"{name}-{network}"
            self._connect(network, socket, device, host.process.pid)
            host.addresses[network] = address = self._address(network, self.count)
            host.run("ip", "address", "add", f"{address}/24", "dev", device)
            host.run("ip", "link", "set", device, "up")
            host.cables[network] = Cable(host, device, self.switch, socket)
        return host

    def remove(self, host: Host) -> None:
        """End a host, whose other processes must have ended before."""
        for cable in host.cables.values():  # now, and not when the kernel comes to it: the name may be wanted again
            self.switch.run("ip", "link", "del", cable.socket)
        self.hosts.pop(host.name).end()

    def end(self) -> None:
        """End all hosts that are left."""
        for host in self.hosts.values():
            host.end()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Let the test run, which is no host, reach both networks."""
        devices = {network: f"tj{os.getpid()}{network[0]}" for network in NETWORKS}
        for network, device in devices.items():
            self._connect(network, f"desk-{network}", device, os.getpid())
            _run("ip", "address", "add", f"{self._address(network, 1)}/24", "dev", device)
            _run("ip", "link", "set", device, "up")
        try:
            yield
        finally:
            for device in devices.values():
                _run("ip", "link", "del", device)

    def _connect(self, network: str, socket: str, device: str, pid: int) -> None:
        pair = ("link", "add", "name", socket, "type", "veth", "peer", "name", device, "netns", str(pid))
        self.switch.run("ip", *pair)
        self.switch.run("ip", "link", "set", socket, "master", network, "up")

    def _address(self, network: str, place: int) -> str:
        return f"{NETWORKS[network]}.{self.number}.{place}"


@contextmanager
def site() -> Iterator[Site]:
    """Make the two networks. Raises NoHosts where this machine does not allow it."""
    if os.geteuid() != 0:
        raise NoHosts("only root may make network namespaces")
    if missing := [
        name for name in ("ip", "tc", "unshare", "nsenter", "setpriv", "mount") if shutil.which(name) is None
    ]:
        raise NoHosts(f"these programs are missing: {', '.join(missing)} (packages iproute2, util-linux and mount)")
    with ExitStack() as stack:
        switch = _start("switch")
        stack.callback(switch.end)
        made = Site(switch, _free_number())
        stack.callback(made.end)
        for network in NETWORKS:
            switch.run("ip", "link", "add", "name", network, "type", "bridge")
            switch.run("ip", "link", "set", network, "up")
        stack.enter_context(made.joined())
        yield made


def _free_number() -> int:
    """Return a number whose networks this machine has no way to yet: other test runs may be at work."""
    routes = _run("ip", "-4", "route", "show")
    for step in range(254):
        number = (os.getpid() + step) % 254 + 1
        if not any(f"{prefix}.{number}." in routes for prefix in NETWORKS.values()):
            return number
    raise NoHosts("all networks that tests may use have routes here")
