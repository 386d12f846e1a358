"""Run folders as a sweep reads them."""
