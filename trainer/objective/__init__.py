"""The objective as a composition of slots; one file per method in the sub-packages."""
