"""Everything that only a machine with a GPU can show: `python -m scripts.gpu_check` from the top of a checkout."""
