"""What follows a sweep: results, exit code, and the commands that cancel, sync and clean up."""
