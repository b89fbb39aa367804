"""Who of the images that are larger than their image process's budget may have memory."""

from collections import deque
from collections.abc import Callable


class MemoryGrants:
    """Grants memory in the order in which it is asked for."""

    def __init__(self, most_bytes: int, on_grant: Callable[[int, int], None]) -> None:
        """most_bytes: what all may take together; on_grant: called with the slot of an image and what it may take."""
        self._most_bytes = most_bytes
        self._on_grant = on_grant
        self._granted: dict[int, int] = {}  # by slot
        self._asking: deque[tuple[int, int]] = deque()  # slots, and what they need

    @property
    def granted_bytes(self) -> int:
        """What may be taken now."""
        return sum(self._granted.values())

    def ask(self, slot: int, needed_bytes: int) -> None:
        """Let an image have memory, as soon as those before it leave so much; alone, it may have all.

        Asked again, because it needs more, it gives up what it was granted first.
        """
        self._granted.pop(slot, None)
        self._asking.append((slot, needed_bytes))
        self._grant()

    def end(self, slot: int) -> None:
        """Note that an image needs no memory any more, whether it has some or only asks."""
        if self._granted.pop(slot, None) is None and not self._asking:
            return  # as with nearly every image
        self._asking = deque(asking for asking in self._asking if asking[0] != slot)
        self._grant()

    def _grant(self) -> None:
        while self._asking:
            slot, needed_bytes = self._asking[0]
            if self._granted and self.granted_bytes + needed_bytes > self._most_bytes:
                return
            self._asking.popleft()
            self._granted[slot] = needed_bytes
            self._on_grant(slot, needed_bytes)
