"""How work travels: jobs and their units in Redis, who holds what, and RQ, which carries the messages."""
