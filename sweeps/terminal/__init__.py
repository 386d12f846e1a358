"""Progress and states on the terminal."""
