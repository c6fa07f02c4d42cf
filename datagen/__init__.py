"""From a taxonomy to a data set: `python -m datagen`. No torch here, and nothing of train."""
