"""Samplers behind one interface: vLLM in this process, and transformers as the slow reference."""
