"""Following runs while they run: which there are, what their files and the queue say, and what that means."""
