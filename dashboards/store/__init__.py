"""Read access to MLflow stores."""
