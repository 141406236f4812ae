"""Diagnostics of adaptive denoising training: recorded while training, analysed, and drawn."""
