"""All measurements of speed and size in one run, and reports of several devices side by side."""
