"""The edits that put a plan into an app's source, and take it out."""
