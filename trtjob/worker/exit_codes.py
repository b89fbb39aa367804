"""How a worker process says why it ends; in a module of its own, since the supervisor loads nothing of the engine."""

SERVER_AWAY = 69  # EX_UNAVAILABLE of sysexits.h
STALLED = 70
DEVICE_LOST = 71
