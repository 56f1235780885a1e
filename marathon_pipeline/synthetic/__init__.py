"""Long videos rendered from a script, so that every answer is known."""
