"""What each layer loses in each format, and the best plan under a budget."""
