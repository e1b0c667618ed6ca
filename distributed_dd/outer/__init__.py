"""What outer steps ask for: learners, which hold what is distilled and update it."""
