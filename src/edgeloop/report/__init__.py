"""The report of a run: tables of its records, charts of the tables, one page of the charts."""
