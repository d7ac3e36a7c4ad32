"""A network that learns to count: brackets, matched deeper and for longer than in anything that it was trained on."""
