"""What the console script `streamproxy` can do: a file for each."""
