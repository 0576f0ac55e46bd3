"""What was measured, as pictures for people."""
