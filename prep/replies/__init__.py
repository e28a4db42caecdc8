"""Replies of a language model: plain text, parser, files, and merging into the keywords of items."""

T_OBJ, T_SUB = "T_obj", "T_sub"
"""The paper's names of the two prompts."""
