"""Any PyTorch module that steps through characters, as an artefact."""
