"""How fast a model is on this machine, and what limits it: what `trtjob bench` measures."""
