"""Trainable ranking methods: one module each, selected by the recipe's `method`."""
