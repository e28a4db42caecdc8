"""The measurement as a page of HTML."""
