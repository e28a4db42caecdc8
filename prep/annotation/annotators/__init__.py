"""Whoever answers prompts: a language model on this machine, on a server or on a cluster, or a recording."""
