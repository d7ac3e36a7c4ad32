"""How well an artefact predicts a text, and what can be read off its states."""
