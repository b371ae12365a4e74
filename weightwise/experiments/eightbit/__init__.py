"""The parts of the study of training in 8 bits."""
