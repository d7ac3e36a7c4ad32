"""The process: settings, logs, signals."""
