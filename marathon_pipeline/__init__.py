"""Marathon: long-video instruction datasets of the VideoMarathon kind."""

__version__ = "0.1.0"
