"""The built-in student: model files, model card, and the scripts that made it."""
