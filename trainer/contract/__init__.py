"""What trainer and sweeps agree on about a run folder, each thing defined once; free of torch."""
