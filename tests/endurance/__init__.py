"""What a server bears for long: churn, cancels and restarts, each bounded in time and number."""
