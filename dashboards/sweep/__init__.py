"""The cells and metrics of one sweep as data frames, and their summary statistics."""
