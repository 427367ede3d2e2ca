"""Engines that run models; they know nothing of ranking."""
