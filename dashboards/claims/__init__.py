"""Claims of the literature, judged on a sweep that runs them (``python sweep.py -m study=claims``)."""
