"""Other weights in the middle of things, as a worker extension."""


def negate(model) -> None:
    model.model.layers[0].self_attn.q_norm.weight.data.neg_()


class Negated:
    def negate_queries(self) -> None:
        self.apply_model(negate)
