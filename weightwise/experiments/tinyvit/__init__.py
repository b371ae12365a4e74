"""The parts of the study of stored distillation."""
