"""From a name to an app's graph, and what importing the app runs."""
