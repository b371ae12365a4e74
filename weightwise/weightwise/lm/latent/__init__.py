"""Cross-layer latent attention: one small latent per token for several layers, kept as codes.

Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) keeps a latent and one rotary key per
token in the place of keys and values per head. Layers of a group share them, as in cross-layer
attention (arXiv 2405.12981), and quantisation makes them smaller again; together that is CLLA
("Lossless KV Cache Compression to 2%", arXiv 2410.15252).
"""
