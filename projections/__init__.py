"""Pure folds: what each event means, as changes."""
