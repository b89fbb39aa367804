"""A child that is told things by its standard input, and may end at any time."""

from trtjob.child_process import started
from trtjob.imaging.lister_protocol import LISTER


def test_what_a_child_that_ended_was_not_told_any_more_is_no_error() -> None:
    with started(LISTER, {}) as (process, _answers):
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.write(b"and one more thing")  # which waits in the buffer until it is closed
