"""Mean negative log-likelihood per token."""

from unlearn_suite import Metric, NoConfig, Row


class Surprise(Metric[NoConfig]):
    def score(self, model, examples, seed):
        for example, score in zip(examples, model.rolling([e.text for e in examples]), strict=True):
            yield Row(example.id, {"nll": score.mean_nll})
