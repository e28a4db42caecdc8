"""One decision of the simulated user in words: `jaxsim.explain` and what it returns."""
