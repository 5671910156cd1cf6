"""TensorBoard's event files: the one writer, the tags, and what feeds them."""
