"""Everything before jobs are queued: checks, which cells are done, an estimate of the time, and the run folders."""
