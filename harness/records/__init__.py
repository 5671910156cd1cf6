"""What a run leaves behind: the Result and its schema, and the folder that it lies in."""
