"""The page of a report: its styles and its script, which become part of every file."""
