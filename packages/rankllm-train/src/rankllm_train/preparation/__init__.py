"""From raw data to training records: hard negatives mined, windows labelled, files split. No torch here."""
