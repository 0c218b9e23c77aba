"""stub"""


def rerank_dataset(): ...
