"""Multimodal sentiment analysis: train, compare and trust."""

__version__ = "0.1.0"
