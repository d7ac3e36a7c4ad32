"""Messages: received, parsed into requests of the domain, built from its events, and sent."""
