"""Models: the files that are served, checked before anything runs them."""
