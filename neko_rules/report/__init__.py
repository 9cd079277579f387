"""Reports: figures, tables and terminal plots of finished and unfinished runs."""
