"""Figures, pages and terminal tables."""
