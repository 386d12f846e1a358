"""The MLflow copy of a run folder, written by a process beside the run."""
