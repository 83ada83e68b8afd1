"""Stop shouting: a dataset of loud and calm sentences, an objective, a metric and a problem."""

from unlearn_suite import (
    Config,
    DatasetSpec,
    MetricSpec,
    ObjectiveSpec,
    ProblemSpec,
    ValueSpec,
    hookimpl,
)


class VoicesConfig(Config):
    """Which sentences of voices."""

    loud: bool
    """the shouted ones or the calm ones"""


@hookimpl
def register_objectives(register):
    register(ObjectiveSpec(name="hush", summary="Make shouted tokens unlikely", load=f"{__name__}.hush:Hush"))


@hookimpl
def register_datasets(register):
    register(
        DatasetSpec(
            name="voices", summary="Loud and calm sentences", load=f"{__name__}.voices:load", config=VoicesConfig
        )
    )


@hookimpl
def register_metrics(register):
    register(
        MetricSpec(
            name="surprise",
            summary="How unlikely a sentence is",
            load=f"{__name__}.surprise:Surprise",
            values={"nll": ValueSpec("negative log-likelihood per token", unit="nats", lowest=0)},
        )
    )


@hookimpl
def register_problems(register):
    register(
        ProblemSpec(name="shouting", summary="Stop shouting; keep calm", fragment=f"{__name__}:problems/shouting.yaml")
    )
