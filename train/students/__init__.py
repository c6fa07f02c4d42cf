"""Students that come with the project."""
