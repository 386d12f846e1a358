"""``python sweep.py -m study=claims``: the experiments behind the claims of the literature, each run once."""
