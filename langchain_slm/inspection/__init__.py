"""What a graph holds, read without running it."""
