"""Cores are shared out among worker processes, never counted twice, those of a GPU's own node first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtjob.worker.core_shares import core_shares, cpus_each

FIRST, SECOND = frozenset(range(4)), frozenset(range(4, 8))
UNKNOWN: frozenset[int] = frozenset()


@pytest.mark.parametrize(
    ("near", "shares"),
    [
        pytest.param([UNKNOWN], [{0, 1, 2, 3, 4, 5, 6, 7}], id="one-process"),
        pytest.param([UNKNOWN, UNKNOWN], [{0, 1, 2, 3}, {4, 5, 6, 7}], id="no-node-is-known"),
        pytest.param([SECOND, FIRST], [{4, 5, 6, 7}, {0, 1, 2, 3}], id="a-gpu-on-each-node"),
        pytest.param([FIRST, FIRST], [{0, 1, 4, 5}, {2, 3, 6, 7}], id="both-on-one-node"),
        pytest.param([FIRST, FIRST, SECOND], [{0, 1}, {2, 3, 7}, {4, 5, 6}], id="two-on-one-node"),
        pytest.param([FIRST | SECOND] * 2, [{0, 1, 2, 3}, {4, 5, 6, 7}], id="one-node"),
        pytest.param([frozenset({99}), UNKNOWN], [{0, 1, 2, 3}, {4, 5, 6, 7}], id="a-node-outside-of-the-affinity"),
    ],
)
def test_each_process_has_an_even_share_near_its_gpu(near: list[frozenset[int]], shares: list[set[int]]) -> None:
    assert core_shares(near, range(8)) == shares


def test_where_there_are_more_processes_than_cores_some_share_one() -> None:
    assert core_shares([UNKNOWN] * 3, [5, 7]) == [{5}, {5}, {7}]


@given(st.lists(st.frozensets(st.integers(0, 30)), min_size=1, max_size=9), st.integers(9, 30))
def test_every_core_is_in_one_share_and_shares_differ_by_one_at_most(near: list[frozenset[int]], cores: int) -> None:
    shares = core_shares(near, range(cores))
    assert sorted(core for share in shares for core in share) == list(range(cores))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("quota", "processes", "cpus"),
    [
        pytest.param(None, 2, 16, id="no-quota"),
        pytest.param(8.0, 2, 4, id="a-quota-is-shared"),
        pytest.param(3.0, 2, 2, id="a-part-of-a-cpu-is-one"),
        pytest.param(64.0, 2, 16, id="a-large-quota"),
        pytest.param(0.5, 4, 1, id="never-none"),
    ],
)
def test_a_quota_is_shared_too(quota: float | None, processes: int, cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtjob.worker.core_shares.quota_cpus", lambda: quota)
    assert cpus_each(set(range(16)), processes) == cpus
