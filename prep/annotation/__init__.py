"""Asking a language model: prompts, tasks, annotators and the store of replies."""
