"""Two results and more: what may be compared, what differs, and what a policy makes of it."""
