"""Callers who mean harm, beside a canary: another caller's streams, compared character by character."""
