"""Candidates for the recommended protocol of each model: one change at a time, chosen by errors on validation data."""
