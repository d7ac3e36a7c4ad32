"""Plain REST: sessions, and how likely texts are."""
