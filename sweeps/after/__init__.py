"""The end of a sweep, and looking after it later: results, cancel, sync, clean-up."""
