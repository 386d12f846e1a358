"""The records that flow through a run, and rollouts as padded batches."""
