"""The model card: artefacts side by side."""
