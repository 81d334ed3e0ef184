"""One module for each row of the figures: `SENTENCE`, `METRICS` and `measure(side)`."""
