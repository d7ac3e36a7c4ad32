"""The services about models: the catalogue, and what a network computes."""
