"""What a model's folder holds, checked before anything is loaded."""
