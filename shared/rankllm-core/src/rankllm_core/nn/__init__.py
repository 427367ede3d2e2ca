"""What both programs need with torch and transformers. Nothing else in the core imports it: the core has no torch."""
