"""Where examples come from: sources, the transforms fitted to them, and the splits that are made of them."""
