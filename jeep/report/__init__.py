"""Tables, comparisons, claims, figures and the report, made from results files only.

It may import `measure`, `probes`, `vectors` and below.
"""
