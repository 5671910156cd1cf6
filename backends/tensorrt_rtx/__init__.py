"""TensorRT for RTX: TensorRT's adapter with the other library."""
