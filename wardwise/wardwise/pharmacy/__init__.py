"""The pharmacy's dispensing machine: in which sequence bins are fetched, and what it is worth."""
