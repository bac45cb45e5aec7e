"""Scripts: a user's Python. What its hooks see of a message, how they are loaded and how they are called."""
