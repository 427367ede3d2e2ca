"""What the HTML pages of this package share: their look, and how they come to hold all that they need."""
