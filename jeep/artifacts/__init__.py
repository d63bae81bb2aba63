"""Tables, comparisons, claims and the report, made from results files only."""
