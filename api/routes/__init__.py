"""One module per noun; each route translates and nothing else."""
