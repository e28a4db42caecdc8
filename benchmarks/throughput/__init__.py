"""How fast the environment steps, beside the bound that the hardware allows."""
