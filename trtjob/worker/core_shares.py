"""The cores of a machine, dealt out to its worker processes: an even share each, of its GPU's own NUMA node first."""

import math
from collections.abc import Sequence, Set

from trtjob.config import MOST_THREADS
from trtjob.cpus import quota_cpus


def core_shares(near: Sequence[Set[int]], cores: Sequence[int]) -> list[frozenset[int]]:
    """Return each worker process's cores; where there are more processes than cores, some share one.

    near: for each process the cores of its GPU's node, none where that is not known; cores: neighbours side by side.
    """
    sizes = [len(_part(cores, number, len(near))) for number in range(len(near))]
    left = list(cores)
    shares: list[list[int]] = [[] for _ in near]
    for node in dict.fromkeys(map(frozenset, near)):
        mates = [number for number, theirs in enumerate(near) if theirs == node]
        own = [core for core in left if core in node]
        for place, mate in enumerate(mates):
            shares[mate] = _part(own, place, len(mates))[: sizes[mate]]
            left = [core for core in left if core not in shares[mate]]
    for share, size in zip(shares, sizes, strict=True):
        missing = size - len(share)
        share += left[:missing]
        del left[:missing]
    return [frozenset(share or [cores[number % len(cores)]]) for number, share in enumerate(shares)]


def _part(items: Sequence[int], number: int, parts: int) -> list[int]:
    return list(items[number * len(items) // parts : (number + 1) * len(items) // parts])


def cpus_each(share: Set[int], processes: int) -> int:
    """Return how many CPUs a worker process of so many may keep busy: its cores, or its part of a container's quota."""
    quota = quota_cpus()
    most = min(len(share), MOST_THREADS)
    return most if quota is None else max(1, min(most, math.ceil(quota / processes)))
