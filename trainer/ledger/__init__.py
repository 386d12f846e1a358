"""Which tokens moved the entropy: the first-order account of every optimiser update."""
