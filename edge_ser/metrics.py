"""Temporary stand-in by the lead until H1 writes this file: overwrite freely, keep these two signatures."""
import numpy as np
def confusion_matrix(truth, predicted, classes):
    m = np.zeros((classes, classes), np.int64)
    np.add.at(m, (np.asarray(truth), np.asarray(predicted)), 1)
    return m
def unweighted_accuracy(confusion):
    n = confusion.sum(1)
    return float(np.mean(np.diag(confusion)[n > 0] / n[n > 0]))
