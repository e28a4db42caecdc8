"""Pages of HTML that are one file each: elements, escaped as they are written, and what charts need."""
