"""The machine as the kernel and the driver show it, and what belongs to no single room."""
