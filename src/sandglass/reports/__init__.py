"""A run as one self-contained page, its figures, and the card of its model."""
