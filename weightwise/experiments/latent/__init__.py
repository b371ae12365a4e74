"""The study of cross-layer latent attention: its arms, what each part shows, its needle task."""
