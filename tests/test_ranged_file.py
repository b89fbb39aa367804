import io

from trtjob.ranged_file import RangedFile


def test_the_rest_of_a_file_is_asked_for_in_large_parts() -> None:
    data, asked = bytes(range(256)) * 40_000, []

    def get(begin: int, end: int) -> bytes:
        asked.append((begin, end))
        return data[begin:end]

    file = io.BufferedReader(RangedFile(len(data), get), 100)
    assert file.seek(7) == 7
    assert file.read() == data[7:]
    assert asked == [(7, 7 + (4 << 20)), (7 + (4 << 20), 7 + (8 << 20)), (7 + (8 << 20), len(data))]
