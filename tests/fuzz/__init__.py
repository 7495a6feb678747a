"""Fuzz targets of the readers, with mutations that keep inputs valid enough to get deep."""
