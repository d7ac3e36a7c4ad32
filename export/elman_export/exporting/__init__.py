"""From a network to an artefact that was compared with it."""
