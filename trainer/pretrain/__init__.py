"""The recipe that made the shipped base model."""
