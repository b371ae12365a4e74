"""The study of the dispensing machine: sequences, layouts, freedom, and its table and figures."""
