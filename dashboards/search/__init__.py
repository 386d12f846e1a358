"""The report of a search: its Optuna study and the runs of its confirmation, as statistics, figures and one page.

The only part of ``dashboards`` that imports optuna, and that reads output folders: a study is kept in its search's
folder, and a search has a report without MLflow too.
"""
