"""One image at a time: from a file's bytes to a network's input, and from its answers to a picture. Knows no jobs."""
