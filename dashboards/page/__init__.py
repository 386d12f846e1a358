"""Figures, HTML pages and tables for the terminal."""
