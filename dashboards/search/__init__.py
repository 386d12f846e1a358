"""The report of a search: statistics and figures of its Optuna study and of its confirmation runs.

Only this part of ``dashboards`` imports optuna and reads output folders, because the Optuna study is in the folder of
the search. So a search has a report without MLflow too.
"""
