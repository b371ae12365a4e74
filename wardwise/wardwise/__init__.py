"""Plan a hospital's delivery robots with fewer robots, metres and late deliveries."""

__version__ = "0.1.0"
