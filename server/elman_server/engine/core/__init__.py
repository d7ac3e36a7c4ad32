"""The engine process: one loop that schedules, runs, samples and delivers."""
