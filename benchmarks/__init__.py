"""Speed: the package against the plain way, in one run."""
