"""The measured process: it loads the model and loops."""
