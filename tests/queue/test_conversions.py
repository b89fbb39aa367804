"""A conversion is wanted as long as its client says so."""

from redis import Redis

from trtjob.queue.conversions import KEPT_S, WANTED_S, Conversion, name_of, named, new_id
from trtjob.queue.keys import conversion_key, wanted_key


def test_a_client_that_falls_silent_is_waited_for_some_seconds(redis: Redis) -> None:
    conversion = Conversion(redis, new_id())
    assert not conversion.is_wanted()
    conversion.want()
    assert conversion.is_wanted()
    assert 0 < redis.ttl(wanted_key(conversion.id)) <= WANTED_S


def test_what_was_cancelled_is_not_wanted_again_by_who_waited_for_it(redis: Redis) -> None:
    conversion = Conversion(redis, new_id())
    conversion.want()
    assert conversion.still_want()
    assert conversion.cancel()
    assert not conversion.still_want()
    assert not conversion.is_wanted()
    assert not conversion.cancel()


def test_what_is_told_of_it_runs_out(redis: Redis) -> None:
    conversion = Conversion(redis, "0123")
    assert [conversion.begin(), conversion.begin()] == [1, 2]
    assert 0 < redis.ttl("trtjob:conversion:0123") <= KEPT_S
    conversion.tell("running", 10, stage="measuring", done=1, total=3)
    assert 0 < redis.ttl("trtjob:conversion:0123") <= 10
    assert not conversion.is_over()
    conversion.tell("failed", message="it is no model")
    assert conversion.is_over()


def test_why_it_has_failed_may_name_a_file_that_is_no_utf8(redis: Redis) -> None:
    conversion = Conversion(redis, new_id())
    conversion.tell("failed", message="cannot read caf\udce9.h5")
    assert redis.hget(conversion_key(conversion.id), "message") == rb"cannot read caf\udce9.h5"


def test_a_conversion_is_called_by_its_name(redis: Redis) -> None:
    request_id = new_id()
    found = named(redis, name_of(request_id))
    assert found is not None
    assert found.id == request_id
    assert named(redis, "convert-1a2b3c4d") is None, "a job of a folder of that name"
    assert named(redis, f"convert-{request_id}\n") is None
