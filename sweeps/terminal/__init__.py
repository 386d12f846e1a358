"""Progress and status of runs on the terminal."""
