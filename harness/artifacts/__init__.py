"""What a worker loads: files that a builder made, and models rebuilt from them."""
