"""Choices that options, hyperparameters and the code behind them share."""

from typing import Literal

OptimizerName = Literal["SGD", "Adam", "AdamW"]
BoxLoss = Literal["ciou", "nwd", "ciou+nwd"]  # similarity of boxes; the last one is the mean of both
