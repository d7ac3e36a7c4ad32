"""Inspections: what a network computes while it reads, behind all turns."""
