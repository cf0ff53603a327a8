"""The mathematics that pruners and regularizers share: structures, scores, selection, rates."""
