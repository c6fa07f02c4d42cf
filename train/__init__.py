"""From an exported data set to a tuned, evaluated student: `python -m train`. Nothing of datagen here."""
