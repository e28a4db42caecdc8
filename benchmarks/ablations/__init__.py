"""What each part of the simulator is worth: the same measurement with one of them left out."""
