"""What Python programs and the command line do with jobs, models and results."""
