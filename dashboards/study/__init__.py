"""One study as tidy frames, and what they add up to."""
