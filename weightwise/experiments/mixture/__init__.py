"""The study of mixtures of experts: its runs, what each part shows, its figures."""
