"""What answers prompts: a language model on this machine, on a server or on a cluster, or recorded replies."""
