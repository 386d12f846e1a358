"""What a run needs of its device's memory, by part, from configuration and ``config.json`` alone."""
