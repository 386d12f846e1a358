"""Factors on the policy term of each token; once per mini-batch before it is split, no gradient."""
