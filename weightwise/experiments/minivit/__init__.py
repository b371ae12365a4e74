"""The parts of the study of shared weights."""
