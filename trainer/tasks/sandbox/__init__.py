"""Programs of a language model, run where they can reach nothing."""
