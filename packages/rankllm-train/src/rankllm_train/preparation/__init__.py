"""From raw data to training records: mining hard negatives, labelling windows, splitting files. Does not import
torch."""
