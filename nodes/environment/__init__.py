"""What this ComfyUI has of what the pack can use."""
