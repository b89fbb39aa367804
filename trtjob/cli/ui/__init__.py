"""What commands show: progress, screens, and what stays on standard output."""
