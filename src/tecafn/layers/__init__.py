"""Modules that several methods are made of; each trains on any data and knows no method."""
