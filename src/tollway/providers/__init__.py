"""What providers take and answer: one pure adapter per dialect."""
