"""Statistics over plain arrays: no result, no file, no clock."""
