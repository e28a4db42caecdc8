"""Finished runs as one page of HTML: curves, results, and sample sessions with the reasons of their users."""
