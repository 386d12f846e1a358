"""Where runs are read from: MLflow stores."""
