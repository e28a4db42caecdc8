"""Whether users return: the fitted model, lives replayed with it, and what policies earn in a life."""
