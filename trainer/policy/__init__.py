"""The language model: loading, forward pass, log-probs and entropy of tokens, kernels for CPUs."""
