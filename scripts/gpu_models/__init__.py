"""Models to measure a GPU with, made from seeds where they are used: big networks need not be carried about."""
