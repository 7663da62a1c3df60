"""The search for hyperparameters: train.py --tune N, with Optuna."""
