"""What this machine, its backends and its meters can do here."""
