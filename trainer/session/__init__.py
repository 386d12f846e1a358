"""Everything a run holds while it lives, and what its components may ask of it."""
