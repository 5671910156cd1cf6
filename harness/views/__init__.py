"""Records as text for people. Nothing is computed here."""
