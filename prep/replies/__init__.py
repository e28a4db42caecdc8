"""Replies of a language model: plain text, parser, files and merging into item keywords."""
