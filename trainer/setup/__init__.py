"""From a resolved configuration to a checked run, before anything starts."""
