"""Everything of the two clients that has no ``await`` in it."""
