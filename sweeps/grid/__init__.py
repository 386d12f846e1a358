"""The cells of a sweep: levels, seeds, names."""
